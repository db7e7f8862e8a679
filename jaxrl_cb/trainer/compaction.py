"""When seeds that are batched get narrower programs, as many of them have stopped."""

COMPILE_SECONDS = 5.0
"""That compiling programs is thought to take, where it has not been seen to take longer."""


def narrowed(width: int, num_running: int) -> int:
    """The width for so many seeds that run: halved as often as they fit, and 2 at least.

    (A group of one would run another program, whose numbers may differ.)
    """
    while width > 2 and num_running <= -(-width // 2):
        width = -(-width // 2)
    return width


class Compaction:
    """Decides by the time that epochs took whether narrower programs are worth compiling."""

    def __init__(self, wanted: bool | None):
        """Knows no times yet.

        Args:
            wanted: whether it always or never pays; None decides.
        """
        self._wanted = wanted
        self._seconds: dict[int, float] = {}

    def note(self, width: int, seconds: float) -> None:
        """Notes what an epoch of programs for so many seeds took."""
        self._seconds[width] = min(seconds, self._seconds.get(width, seconds))

    def pays(self, width: int, narrow: int, epochs: int, compile_seconds: float) -> bool:
        """Whether programs for fewer seeds save more time than compiling them takes.

        Args:
            width: seeds of the programs that there are.
            narrow: of the others.
            epochs: left to run.
            compile_seconds: that compiling took so far.
        """
        if self._wanted is not None:
            return self._wanted
        return epochs * self.saved(width, narrow) > max(compile_seconds, COMPILE_SECONDS)

    def saved(self, width: int, narrow: int) -> float:
        """Seconds of an epoch that narrower programs save.

        Time is taken to be proportional to the width until two widths were seen, then to lie on the
        line through them (an accelerator takes as long for 8 seeds as for 64).
        """
        if width not in self._seconds:
            return 0.0
        now, wider = self._seconds[width], [w for w in self._seconds if w > width]
        if not wider:
            return now * (1 - narrow / width)
        other = min(wider)
        slope = (self._seconds[other] - now) / (other - width)
        return min(max(slope, 0.0) * (width - narrow), now)

"""Settings of a run of some tenths of a second, once its programs are compiled."""

TINY = {
    "num_envs": 4,
    "batch_size": 16,
    "buffer_size": 400,
    "start_timesteps": 40,
    "epoch_num_steps": 80,
    "num_test_episodes": 3,
    "hidden_sizes": (16,),
    "verbose": False,
}
SHORT = {"env_kwargs": {"max_steps_in_episode": 50}}

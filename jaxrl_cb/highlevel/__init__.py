"""Names at the places where Tianshou users look for them."""

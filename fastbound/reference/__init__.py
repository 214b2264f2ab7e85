"""What each primitive means, in plain torch: forward, explicit backward, and how to make inputs for tests."""

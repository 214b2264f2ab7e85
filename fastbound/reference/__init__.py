"""The definition of each primitive in plain torch: forward, explicit backward, and inputs for tests."""

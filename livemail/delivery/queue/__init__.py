"""What is done with the queue: the runner, its schedule, and how much it does at a time."""

"""What fre-bench is made of: how long to measure, what to time, and when to trust it."""

"""What both trainings share: loop, optimizer, schedule, EMA, checkpoints, run log, command line."""

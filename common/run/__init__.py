"""Everything between the shell and an app: arguments, process, signals, daemon mode."""

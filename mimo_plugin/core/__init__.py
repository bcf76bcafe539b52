"""What every other part stands on: errors, files that are whole or not there, the machine."""

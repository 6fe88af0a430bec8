"""What identifies a program besides its arrays: the code that tracing reads."""

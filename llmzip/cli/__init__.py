"""The command line: what the user types and reads. Nothing else imports it."""

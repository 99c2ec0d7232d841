"""Tables declared, described, altered and dropped."""

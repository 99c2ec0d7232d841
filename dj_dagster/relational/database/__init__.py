"""The database itself: connections, what it holds, and the one way by which rows reach it."""

"""Jobs for the launchpad, and their schedules."""

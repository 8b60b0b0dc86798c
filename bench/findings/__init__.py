"""Say what a campaign's rows mean. Imports nothing that measures."""

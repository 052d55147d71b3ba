"""The fault suite: real faults in real runs, and nothing lost, nothing twice, no wrong token."""

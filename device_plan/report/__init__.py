"""The report for the mobile team: what a plan costs on a device, as text, JSON and a page."""

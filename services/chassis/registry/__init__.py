"""Who is there: leases, the directory of live instances, and what a host has and uses."""

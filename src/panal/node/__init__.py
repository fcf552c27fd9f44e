"""This node: status, series, services, logs, time, dns, hosts."""

"""The web app: pages that call the jobs and figures of the command line. Loopback, offline, no telemetry."""

"""The page, the REST API and the jobs' records; jobs run in a backend, never in this package."""

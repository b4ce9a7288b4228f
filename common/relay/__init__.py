"""The proxy engine: connections as two sides and two flows, walking one table of stages."""

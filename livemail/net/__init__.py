"""What every protocol needs of the network: connections with back-pressure, coroutines, TLS, limits, logs."""

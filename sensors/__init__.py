"""What sensors say: kinds, payload formats, the simulated town and recordings. Knows nothing of MQTT or InfluxDB."""

"""What a streamer publishes, passed on to what hospitals and homes run: MQTT, webhooks, NATS, Kafka (docs/bridge.md).

`events` decides what is passed on, `buffer` keeps what waits, `running` moves it, `cursor` remembers how far it came.
Each target is a file: `mqtt`, `webhook`, `nats`, `kafka`; `base` says what they have in common.
"""

"""The sockets of protocol 1.0: publisher and subscriber, who may connect, and how lost messages are got again.

Imports the protocol. Only this room and sources/imagezmq.py import zmq.
"""

#!/usr/bin/python3
"""Every bad server, one after the other in random order, against a backlog, on the port
where the good one was before; HTTP/1.1, HTTP/2 and TLS. Nothing that was not confirmed
leaves the spool, and the good server gets all of it in the end."""

import time

import rig
import badserver
import certificates

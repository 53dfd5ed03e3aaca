"""The admin wire: every command, reply, event and error, defined once and imported by both sides.

HTTP on a Unix socket: `POST /v1/<command>` with the command as JSON.  The reply is NDJSON: for a command that answers
at once one line of `reply`; for one that takes time any number of Progress lines, then one line that is `reply` or
Failed.  Within /v1 fields are only added; unknown fields are ignored on the wire.
"""

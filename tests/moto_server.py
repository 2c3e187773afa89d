"""Runs moto on a loopback port, one request at a time.

usage: moto_server.py PORT

The server of moto has a thread per request and no lock, so another request can run between the condition of an update
and the update. Conditional writes of DynamoDB are atomic; the lock here makes those of moto atomic too.
"""

import sys
import threading

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple

application = DomainDispatcherApplication(create_backend_app)
turn = threading.Lock()


def one_at_a_time(environ, start_response):
    """Handles a request while no other request is handled."""
    with turn:
        return list(application(environ, start_response))


if __name__ == "__main__":
    run_simple("127.0.0.1", int(sys.argv[1]), one_at_a_time, threaded=True, request_handler=MotoRequestHandler)

"""moto on a port of loopback, answering one request at a time.

usage: moto_server.py PORT

moto's own server has a thread for each request and no lock: between the condition of an update and the update itself
another request may come. DynamoDB's conditional writes are atomic, so here they are too.
"""

import sys
import threading

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple

application = DomainDispatcherApplication(create_backend_app)
turn = threading.Lock()


def one_at_a_time(environ, start_response):
    """Answers a request while no other one is answered."""
    with turn:
        return list(application(environ, start_response))


if __name__ == "__main__":
    run_simple("127.0.0.1", int(sys.argv[1]), one_at_a_time, threaded=True, request_handler=MotoRequestHandler)

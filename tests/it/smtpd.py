"""A mail server for the tests: smtpd.py FOLDER MODE, with aiosmtpd. Prints its port; each message it
takes is a file mail-N there. MODE is starttls, tls or refuse; certificates are the folder's."""

import itertools
import ssl
import sys
import threading

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, SMTP

folder, mode = sys.argv[1:]
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(f"{folder}/server.pem", f"{folder}/server.key")
numbers = itertools.count()


class Handler:
    async def handle_DATA(self, server, session, envelope):
        if mode == "refuse":
            return "554 5.7.1 no room at the inn"
        about = f"X-Tls: {bool(session.ssl)}\nX-User: {session.auth_data.login.decode()}\n"
        about += f"X-To: {envelope.rcpt_tos}\nX-From: {envelope.mail_from}\n"
        with open(f"{folder}/mail-{next(numbers)}", "w", encoding="utf-8") as file:
            file.write(about + envelope.content.decode())
        return "250 OK"


def login(server, session, envelope, mechanism, data):
    return AuthResult(success=data.login == b"me" and data.password == b"sesame-mail")


class Server(Controller):
    def factory(self):
        tls = {} if mode == "tls" else {"tls_context": context, "require_starttls": True}
        return SMTP(self.handler, authenticator=login, auth_required=True,
                    auth_require_tls=mode != "tls", **tls)


outer = {"ssl_context": context} if mode == "tls" else {}
controller = Server(Handler(), hostname="127.0.0.1", port=0, **outer)
# The controller looks itself up under its port, which it does not know yet.
controller._trigger_server = lambda: None
controller.start()
print(controller.server.sockets[0].getsockname()[1], flush=True)
threading.Event().wait()

"""A mail server for the tests: smtpd.py FOLDER MODE, with aiosmtpd. Prints its port; each message it
takes is a file mail-N there. MODE is starttls, tls or refuse; certificates are the folder's."""

import asyncio
import itertools
import ssl
import sys

from aiosmtpd.smtp import AuthResult, SMTP

folder, mode = sys.argv[1:]
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(f"{folder}/server.pem", f"{folder}/server.key")
numbers = itertools.count()


class Handler:
    async def handle_DATA(self, server, session, envelope):
        if mode == "refuse":
            return "554 5.7.1 no room at the inn"
        about = f"X-Tls: {server.transport.get_extra_info('ssl_object') is not None}\nX-User: {session.auth_data.login.decode()}\n"
        about += f"X-To: {envelope.rcpt_tos}\nX-From: {envelope.mail_from}\n"
        with open(f"{folder}/mail-{next(numbers)}", "w", encoding="utf-8") as file:
            file.write(about + envelope.content.decode())
        return "250 OK"


def login(server, session, envelope, mechanism, data):
    good = data.login == b"me" and data.password == b"sesame-mail"
    return AuthResult(success=good, handled=False, auth_data=data)


def session():
    tls = {} if mode == "tls" else {"tls_context": context, "require_starttls": True}
    return SMTP(Handler(), authenticator=login, auth_required=True, hostname="mail.example",
                auth_require_tls=mode != "tls", **tls)


async def main():
    outer = context if mode == "tls" else None
    loop = asyncio.get_running_loop()
    server = await loop.create_server(session, "127.0.0.1", 0, ssl=outer)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())

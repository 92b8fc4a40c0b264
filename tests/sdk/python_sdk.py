#!/usr/bin/env python3
"""Lets Twilio's official Python library talk to the simulator, and check the webhooks that it signs.

What it proves: the simulator's answers, errors, pages and signatures are those that Twilio's own library understands.

How to run it, with any Python 3.9 or later:

    python3 -m venv target/twilio-venv
    target/twilio-venv/bin/pip install 'twilio>=9,<10'

    # either: through the Rust test, which starts a simulator of its own
    TWILIO_SDK_PYTHON=target/twilio-venv/bin/python cargo test --lib official_python_library -- --ignored

    # or: against a simulator that is already running (in either callback mode)
    target/twilio-venv/bin/python tests/sdk/python_sdk.py http://127.0.0.1:4010 ACCOUNT_SID AUTH_TOKEN

Nothing is sent to Twilio: every request goes to the simulator's address.
"""

import json
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.request_validator import RequestValidator
from twilio.rest import Client

WHATSAPP_SENDER = "whatsapp:+14155238886"
SMS_SENDER = "+14155238886"
PHONE = "whatsapp:+4915112345678"


class SimulatedHost(TwilioHttpClient):
    """The library's own HTTP client, with Twilio's hosts replaced by the simulator's address."""

    def __init__(self, base):
        super().__init__()
        self.base = base

    def request(self, method, url, *args, **kwargs):
        parts = urlsplit(url)
        assert parts.scheme == "https" and parts.netloc.endswith(".twilio.com"), url
        local = self.base + parts.path + (f"?{parts.query}" if parts.query else "")
        return super().request(method, local, *args, **kwargs)


class Receiver(BaseHTTPRequestHandler):
    """Takes webhooks and notes whether the library's validator believes each of them."""

    validator = None
    seen = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        fields = dict(parse_qsl(body, keep_blank_values=True))
        url = f"http://{self.headers['Host']}{self.path}"
        signature = self.headers["X-Twilio-Signature"]
        self.seen.append((self.path, fields, self.validator.validate(url, fields, signature)))
        answer = b"<Response><Message>Taken &amp; noted</Message></Response>"
        self.send_response(200)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def control(base, method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{base}/_simulator{path}", data=data, method=method, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        text = answer.read()
        return json.loads(text) if text else None


def expect_error(status, code, work):
    try:
        work()
    except TwilioRestException as error:
        assert (error.status, error.code) == (status, code), (error.status, error.code, error.msg)
        return
    raise AssertionError(f"no error, though {code} was expected")


def wait_until(base, what, condition):
    """In manual mode moves messages on; in automatic mode waits for them."""
    for _ in range(100):
        if condition():
            return
        control(base, "POST", "/callbacks/step", {})
        time.sleep(0.05)
    raise AssertionError(f"never: {what}")


def check_messages(client, base, callback):
    sent = client.messages.create(to=PHONE, from_=WHATSAPP_SENDER, body="Jürgen, 7+1 😀", status_callback=callback)
    assert sent.sid.startswith("SM") and sent.status == "queued" and sent.direction == "outbound-api"
    assert sent.body == "Jürgen, 7+1 😀" and sent.num_segments == "1" and sent.error_code is None
    assert sent.date_created.tzinfo is not None and sent.date_sent is None

    done = ("delivered", "read")
    wait_until(base, "delivered", lambda: client.messages(sent.sid).fetch().status in done)
    wait_until(base, "told", lambda: any(f.get("MessageStatus") == "delivered" for _, f, _ in Receiver.seen))
    fetched = client.messages(sent.sid).fetch()
    assert fetched.sid == sent.sid and fetched.date_sent is not None and fetched.to == PHONE

    for n in range(4):
        client.messages.create(to=PHONE, from_=WHATSAPP_SENDER, body=f"number {n}")
    # The library follows the pages by itself.
    listed = client.messages.list(to=PHONE, page_size=2, limit=5)
    assert [m.body for m in listed] == ["number 3", "number 2", "number 1", "number 0", "Jürgen, 7+1 😀"]
    assert client.messages.list(to="whatsapp:+4910000000", limit=5) == []
    assert sent.sid in [m.sid for m in client.messages.list(date_sent_after=fetched.date_sent, limit=50)]

    assert client.messages(sent.sid).update(body="").body == ""
    assert client.messages(sent.sid).delete() is True
    expect_error(404, 20404, lambda: client.messages(sent.sid).fetch())


def check_errors(client, base):
    def create(**fields):
        return lambda: client.messages.create(**{"to": PHONE, "from_": WHATSAPP_SENDER, "body": "x", **fields})

    expect_error(400, 21211, create(to="whatsapp:+0"))
    expect_error(400, 21910, create(from_=SMS_SENDER))
    expect_error(400, 21606, create(to="+4915112345678", from_="+15550000000"))
    expect_error(400, 21617, create(body="a" * 1601))
    control(base, "POST", "/faults", {"kind": "too_many_requests", "retry_after_s": 1, "next": 1})
    expect_error(429, 20429, create())
    control(base, "POST", "/faults", {"kind": "server_error", "http_status": 503, "next": 1})
    expect_error(503, 20503, create())
    wrong = Client(client.account_sid, "wrong", http_client=SimulatedHost(base))
    expect_error(401, 20003, lambda: wrong.messages("SM" + "0" * 32).fetch())


def check_account(client):
    assert client.api.v2010.accounts(client.account_sid).fetch().status == "active"
    numbers = client.incoming_phone_numbers.list(phone_number=SMS_SENDER, limit=1)
    assert [n.phone_number for n in numbers] == [SMS_SENDER]
    assert client.balance.fetch().currency == "USD"


def check_content(client):
    from twilio.rest.content.v1.content import ContentList

    made = client.content.v1.contents.create(
        ContentList.ContentCreateRequest(
            {
                "friendly_name": "crisis_alert",
                "language": "en",
                "variables": {"1": "AAAA1111"},
                "types": {"twilio/text": {"body": "Alert {{1}}, please answer"}},
            }
        )
    )
    contents = client.content.v1.contents
    assert made.sid in [content.sid for content in contents.list(limit=20)]
    assert contents(made.sid).approval_fetch().fetch().whatsapp["status"] == "approved"
    sent = client.messages.create(
        to=PHONE, from_=WHATSAPP_SENDER, content_sid=made.sid, content_variables=json.dumps({"1": "K7Q2"})
    )
    assert sent.body == "Alert K7Q2, please answer"


def check_webhooks(base, url):
    control(base, "PUT", "/inbound-url", {"url": f"{url}/incoming?hook=a%2Fb"})
    reply = control(base, "POST", "/reply", {"from": PHONE, "text": "  ACK für 7+1 😀\n "})
    assert reply["http_status"] == 200 and reply["answers"] == ["Taken & noted"], reply
    paths = {path for path, _, _ in Receiver.seen}
    assert paths == {"/status?attempt=1%2F7", "/incoming?hook=a%2Fb"}, paths
    for path, fields, believed in Receiver.seen:
        assert believed, f"the library does not believe {path} {sorted(fields)}"


def main():
    base, account_sid, auth_token = sys.argv[1:4]
    Receiver.validator = RequestValidator(auth_token)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    client = Client(account_sid, auth_token, http_client=SimulatedHost(base))

    control(base, "POST", "/reset")
    check_account(client)
    check_messages(client, base, f"{url}/status?attempt=1%2F7#rc=2&rp=all")
    check_errors(client, base)
    check_content(client)
    check_webhooks(base, url)
    print(f"ok: {len(Receiver.seen)} webhooks believed")


if __name__ == "__main__":
    main()

"""Python's clients: mail.py SMTP-PORT POP3-PORT CA. Sends three messages, reads them, deletes one; each way by TLS."""

import poplib
import smtplib
import ssl
import sys

smtp_port, pop3_port = int(sys.argv[1]), int(sys.argv[2])
tls = ssl.create_default_context(cafile=sys.argv[3])

# A body without a line end, lines of dots, a long line, and letters of 8 bits.
bodies = [b"Subject: one\r\n\r\nhello", b".\r\n..\r\n...a\r\n\r\n.", b"\r\n" + b"x" * 2000 + "ü\r\n".encode()]

with smtplib.SMTP("127.0.0.1", smtp_port, timeout=30) as smtp:
    smtp.ehlo()
    assert smtp.has_extn("starttls")
    smtp.starttls(context=tls)
    smtp.ehlo()
    assert not smtp.has_extn("starttls")
    for body in bodies:
        assert smtp.sendmail("me@example.org", ["you@example.org", "her@example.org"], body) == {}
    try:
        smtp.sendmail("me@example.org", "you@example.org", b"x" * (11 << 20))
        raise SystemExit("a long message was taken")
    except smtplib.SMTPResponseException as error:
        assert error.smtp_code == 552, error

pop3 = poplib.POP3("127.0.0.1", pop3_port, timeout=30)
pop3.stls(context=tls)
pop3.user("you")
pop3.pass_("secret")
count, size = pop3.stat()
assert count == 3, count
sizes = [int(line.split()[1]) for line in pop3.list()[1]]
assert sum(sizes) == size and len(set(pop3.uidl()[1])) == 3
for number, body in enumerate(bodies, 1):
    lines = pop3.retr(number)[1]
    assert lines[0] == b"Return-Path: <me@example.org>", lines[0]
    assert lines[1:3] == [b"Delivered-To: you@example.org", b"Delivered-To: her@example.org"], lines[1:3]
    assert lines[3:] == body.splitlines(), (number, lines[3:])
    assert sum(len(line) + 2 for line in lines) == sizes[number - 1]
pop3.dele(2)
assert pop3.stat()[0] == 2
pop3.quit()

again = poplib.POP3("127.0.0.1", pop3_port, timeout=30)
again.user("you")
again.pass_("secret")
assert again.stat()[0] == 2
again.dele(1)
again.rset()
again.dele(1)
again.close()  # without QUIT nothing is deleted

wrong = poplib.POP3("127.0.0.1", pop3_port, timeout=30)
wrong.user("you")
try:
    wrong.pass_("wrong")
    raise SystemExit("a wrong password was taken")
except poplib.error_proto:
    pass
print("all is well")

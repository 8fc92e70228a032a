"""A secret does not reach a log, however a program writes it."""

from __future__ import annotations

import base64
import html
import json
import random
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote, quote_plus
from xml.sax.saxutils import quoteattr

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ciserver.lib.crypto import Secret
from ciserver.lib.masking import Masker
from ciserver.pipelines.ansi import plain
from ciserver.pipelines.logs import LINE_CAP, LogReader, LogWriter

VALUE = 'p&ss "wörd"/+<7>\\x%2'
RAW = VALUE.encode()

QUOTED = "it's <a>'s $(x) `y` \"wörd\" \\\\ 100%& more"


def _of_shell(shell: str, script: str, value: str) -> bytes:
    """What it prints, a trace too, with ``value`` as $1."""
    words = [shell, "-c", script, "-", value]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True)
    return done.stdout.strip(b"\n")


def _forms(value: str) -> dict[str, bytes]:
    """Ways in which programs quote and escape a value."""
    raw = value.encode()
    numbered = html.escape(value).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")
    go = json.dumps(value, ensure_ascii=False)
    for letter in "<>&":
        go = go.replace(letter, f"\\u{ord(letter):04x}")
    return {
        "printf %q": _of_shell("bash", 'printf %q "$1"', value),
        "bash's @Q": _of_shell("bash", 'printf %s "${1@Q}"', value),
        "a trace of bash": _of_shell("bash", 'set -x; : "$1"', value),
        "a trace of bash that compares": _of_shell("bash", 'set -x; [[ $1 == "$1" ]]', value),
        "a trace of dash": _of_shell("dash", 'set -x; : "$1"', value),
        "variables of bash": _of_shell("bash", 'A="$1"; declare -p A; set | grep -a ^A=', value),
        "exports of bash": _of_shell("bash", 'export A="$1"; export -p | grep -a " A="', value),
        "exports of dash": _of_shell("dash", 'export A="$1"; export -p | grep -a " A="', value),
        "Python's shlex": shlex.quote(value).encode(),
        "Python's repr": repr(value).encode(),
        "Python's repr of bytes": repr(raw).encode(),
        "YAML": yaml.safe_dump({"a": value}, width=1000).encode(),
        "Go's JSON": go.encode(),
        "XML": html.escape(value, quote=False).encode(),
        "an attribute of XML": quoteattr(value).encode(),
        "Go's HTML": numbered.encode(),
        "encodeURIComponent": quote(value, safe="!'()*~").encode(),
        "encodeURI": quote(value, safe=";,/?:@&=+$#!'()*~").encode(),
        "a login in a URL": quote(value, safe="$&+,;=~").encode(),
        "SQL": value.replace("'", "''").encode(),
        "hex with colons": raw.hex(":").encode(),
        "hex with spaces": raw.hex(" ").upper().encode(),
        "escapes of C": "".join(f"\\x{byte:02x}" for byte in raw).encode(),
    }


FORMS = {
    "plain": RAW,
    "base64": base64.b64encode(RAW),
    "base64 behind one byte": base64.b64encode(b"u" + RAW),
    "base64 behind two bytes": base64.b64encode(b"u:" + RAW + b"@host"),
    "base64 with a newline": base64.b64encode(RAW + b"\n"),
    "urlsafe base64": base64.urlsafe_b64encode(b"u" + RAW),
    "url": quote(VALUE, safe="").encode(),
    "url, slashes kept": quote(VALUE).encode(),
    "url, small letters": quote(VALUE, safe="").lower().encode(),
    "form": quote_plus(VALUE).encode(),
    "hex": RAW.hex().encode(),
    "HEX": RAW.hex().upper().encode(),
    "hex in both cases": RAW.hex().upper().encode().replace(b"C", b"c"),
    "hex with dashes": RAW.hex("-").encode(),
    "base32": base64.b32encode(RAW),
    "base32 without padding": base64.b32encode(RAW + b"\n").rstrip(b"="),
    "base32 in small letters": base64.b32encode(b"u" + RAW).lower(),
    **{f"base32 behind {n}": base64.b32encode(b"u" * n + RAW + b"@host") for n in range(1, 6)},
    "bytes of Python": str(list(RAW)).encode(),
    "bytes of Node": json.dumps(list(RAW), separators=(",", ":")).encode(),
    "bytes of Go": " ".join(map(str, RAW)).encode(),
    "json": json.dumps(VALUE).encode(),
    "json, as PHP writes it": json.dumps(VALUE).replace("/", "\\/").encode(),
    "json in json": json.dumps(json.dumps({"a": VALUE})).encode(),
    "url in a url": quote(quote(VALUE, safe=""), safe="").encode(),
    "shell": subprocess.check_output(["bash", "-c", 'printf %q "$1"', "-", VALUE]),
    "a trace of the shell": subprocess.run(
        ["bash", "-xc", ': "$1"', "-", VALUE], capture_output=True, check=True
    ).stderr.strip(),
    "base64 in base64": base64.b64encode(b'{"auth": "' + base64.b64encode(b"u:" + RAW) + b'"}'),
    "json, not ascii": json.dumps({"a": VALUE}, ensure_ascii=False).encode(),
    "colours between": b"".join(b"\x1b[3%dm%c" % (n % 8, byte) for n, byte in enumerate(RAW)),
    "a title between": RAW[:5] + b"\x1b]0;title\x07" + RAW[5:],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_usual_encoding_is_masked(form: str) -> None:
    masked = Masker([Secret(VALUE)]).mask(b"before " + FORMS[form] + b" behind")
    assert b"***" in masked
    assert masked.startswith(b"before ")
    assert masked.endswith(b" behind")
    for piece in (RAW, RAW[2:-2], base64.b64encode(RAW)[4:-4], RAW.hex().encode()[:12]):
        assert piece not in masked
    left = masked[len(b"before ") : -len(b" behind")].lower()
    for before in range(5):
        core = base64.b32encode(b"u" * before + RAW).rstrip(b"=")[-(-before * 8 // 5) : -1].lower()
        assert core[:8] not in left and core[-8:] not in left


@pytest.mark.parametrize("value", [VALUE, QUOTED, "pa(ss)/wo!rd*x", "''a''", "ключ-тайна 🔑"])
def test_it_is_masked_however_it_is_quoted_and_escaped(value: str) -> None:
    masker = Masker([Secret(value)])
    for form, text in _forms(value).items():
        masked = b"\n".join(masker.mask_lines([b"before", text, b"behind"]))
        assert masked.startswith(b"before\n"), form
        assert masked.endswith(b"\nbehind"), form
        left = masked[len(b"before\n") : -len(b"\nbehind")]
        assert b"***" in left, (form, text)
        words = [word for word in re.findall(r"[^\W_]{3,}", value) if word.encode() in text]
        assert not [word for word in words if word.encode() in left], (form, left)


@pytest.mark.parametrize("value", ["'" * 40 + "x", "\\" * 40 + "x", "\"'\\& %" * 12 + "x"])
@pytest.mark.parametrize("piece", ["'", "''", "\\", "&amp;", "%25", "'\\''", "\"'\\& %"])
def test_no_text_of_quotes_keeps_the_search_busy(value: str, piece: str) -> None:
    masker = Masker([Secret(value)])
    line = f"x {piece * (65536 // len(piece))} x"
    before = time.process_time()
    masker.mask_text(line)
    assert time.process_time() - before < 2


def test_base64_that_is_broken_into_lines_is_masked() -> None:
    value = "".join(random.Random(7).choices("abcdefghijklmnop0123456789", k=300))
    lines = base64.encodebytes(value.encode()).splitlines()
    masker = Masker([Secret(value)])
    assert {masker.mask(line) for line in lines} == {b"***"}


def test_base64_of_more_than_the_secret_that_is_broken_into_lines_is_masked() -> None:
    """As ``printf user:TOKEN | base64`` writes it: no line is nothing but a piece of it."""
    value = "".join(random.Random(7).choices("abcdefghijklmnop0123456789", k=93))
    for before in range(60):
        text = b"u" * before + b":" + value.encode() + b"@host.example.org/"
        lines = base64.encodebytes(text).splitlines()
        masked = Masker([Secret(value)]).mask_lines(lines)
        first, last = -(-(before + 1) * 4 // 3), (before + 1 + len(value)) * 4 // 3
        found = 0
        for number, line in enumerate(lines):
            part = line[max(0, first - 76 * number) : max(0, last - 76 * number)]
            if len(part) >= 8:
                found += 1
                assert part[:8] not in masked[number], before
                assert part[-8:] not in masked[number], before
                assert masked[number] == line.replace(part, b"***"), before
            else:
                assert masked[number] == line, before
        assert found >= 2, before


def test_the_longest_secret_takes_little_memory_and_is_masked() -> None:
    """64 KiB: a set of all its windows and one pattern of all its forms took 700 MiB."""
    letters = random.Random(7)
    value = "\n".join("".join(letters.choices("abcdefghijklmnop+/123", k=64)) for _ in range(1000))
    program = f"""if True:
        import base64, re
        from ciserver.lib.crypto import Secret
        from ciserver.lib.masking import Masker
        value = {value.encode()!r}
        masker = Masker([Secret(value.decode())])
        for text in (b"u:" + value, b"xyz" + value):
            lines = base64.encodebytes(text).splitlines()
            masked = masker.mask_lines(lines)
            assert set(masked[1:-1]) == {{b"***"}}, [it for it in masked if it != b"***"]
        assert masker.mask(b"[" + base64.b64encode(value) + b"]").startswith(b"[***")
        print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
    """
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True)
    # Its own: of ru_maxrss, what the process had that began it is a part.
    assert int(done.stdout) < 200 * 1024  # KiB


@pytest.mark.parametrize("small", [False, True])
def test_base32_that_is_broken_into_lines_is_masked(small: bool) -> None:
    value = "".join(random.Random(7).choices("abcdefghijklmnop0123456789", k=93))
    for before in range(80):
        text = base64.b32encode(b"u" * before + value.encode() + b"\n")
        text = text.lower() if small else text
        lines = [text[place : place + 76] for place in range(0, len(text), 76)]
        masked = Masker([Secret(value)]).mask_lines(lines)
        first, last = -(-before * 8 // 5), (before + len(value)) * 8 // 5
        for number, line in enumerate(lines):
            part = line[max(0, first - 76 * number) : max(0, last - 76 * number)]
            expected = line.replace(part, b"***") if len(part) >= 8 else line
            assert masked[number] == expected, before


DUMPS = {  # and how many bytes a line of it shows
    "od": 16, "od -c": 16, "od -a": 16, "od -b": 16, "od -x": 16, "od -An -tx1": 16,
    "od -Ax -tx1z": 16, "od -tx4": 16, "od -tx8": 16, "od -w8 -tx1": 8, "hexdump": 16,
    "hexdump -C": 16, "hexdump -c": 16, "hexdump -b": 16, "xxd": 16, "xxd -g1": 16, "xxd -u": 16,
    "xxd -g4": 16, "xxd -g8": 16, "xxd -e": 16, "xxd -b": 6, "xxd -i": 12, "xxd -c32": 32,
}  # fmt: skip


def _dump(command: str, data: bytes) -> list[bytes]:
    done = subprocess.run(command.split(), input=data, stdout=subprocess.PIPE, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("command", DUMPS)
@pytest.mark.parametrize("value", ["hunter2-SECRET/of*42", "S3cr:T"])
def test_no_line_of_a_dump_shows_much_of_a_secret(command: str, value: str) -> None:
    raw, masker = value.encode(), Masker([Secret(value)])
    least = min(4, len(raw) // 2)
    for before in range(DUMPS[command] + 1):
        head = "".join(random.Random(before).choices("efghijkuvwxyz", k=before)).encode()
        lines = _dump(command, head + raw + b" behind, and more\n")
        masked = masker.mask_lines(lines)
        assert [masker.mask(line) for line in lines] == list(masked)
        for number, (line, left) in enumerate(zip(lines, masked, strict=True)):
            start = number * DUMPS[command]
            shown = min(start + DUMPS[command], before + len(raw)) - max(start, before)
            if shown >= least:
                assert re.fullmatch(rb"([0-9a-f]+:?)? *\*\*\*", left), (line, left)
            else:
                assert left == line


@pytest.mark.parametrize("before", range(16))
def test_a_key_as_openssl_prints_it_is_masked(before: int) -> None:
    raw = b"\x01" * before + b"hunter2-SECRET/of*42 and its 2nd half" + b"\x02" * 9
    octets = raw.hex(":").split(":")
    lines = [f"    {':'.join(octets[at : at + 15])}:".encode() for at in range(0, len(octets), 15)]
    masked = Masker([Secret("hunter2-SECRET/of*42 and its 2nd half")]).mask_lines(lines)
    for number, line in enumerate(masked):
        shown = min(number * 15 + 15, before + 37) - max(number * 15, before)
        assert (line == b"    ***") == (shown >= 4)


def test_what_is_no_dump_of_a_secret_is_untouched() -> None:
    masker = Masker([Secret("hunter2-secret"), Secret("-----BEGIN KEY-----")])
    for line in (
        b"00000000: 2d2d 2d2d 2d2d 2d2d 6f6b 6f6b 0a0a 0a0a  --------okok....",
        b"2026-11-30 12:34:56 10 20 30 40 deadbeef cafebabe",
        b"pointers 0x7fff12345678, 0x00, 0x01, 0x02, 0x03",
        b"a   b   c   d   e   f",
        b"SHA256 9f:86:d0:81:88:4c:7d:65:9a:2f:ea:a0:c5:5a:d0:15",
    ):
        assert masker.mask(line) == line
        assert masker.mask_lines([line]) == [line]


@pytest.mark.parametrize("size", [1, 7, 64])
def test_writes_may_cut_a_dump_anywhere(tmp_path: Path, size: int) -> None:
    data = b"\n".join(_dump("od -An -tx1", b"user:hunter2-secret and more")) + b"\n"
    data += base64.b32encode(b"x" * 3 + b"hunter2-secret") + b"\n"
    with LogWriter(tmp_path / "1.log") as log:
        log.masker = Masker([Secret("hunter2-secret")])
        for start in range(0, len(data), size):
            log.write(1, "out", data[start : start + size])
    words = [line.text for line in LogReader(tmp_path / "1.log")]
    assert words[0] == " ***"
    assert words[-1] == "PB4HQ***A===="  # with bits of the bytes beside it


@pytest.mark.parametrize("cell", ["68 ", "6875 ", "68756e74 ", "   h", "110 ", "0x68, ", "0x"])
def test_a_long_line_of_a_dump_is_masked_in_linear_time(cell: str) -> None:
    masker = Masker([Secret("hunter2-secret"), Secret("hhhh-other-one")])
    before = time.process_time()
    masker.mask_text(cell * (65536 // len(cell)))
    assert time.process_time() - before < 1


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [b"", b"ok", b"hunter2-secret", b"\x1b[1m", b"aHVudGVyMi1z", b"ZWNyZXQ=", b"x" * 40]
        ),
        max_size=12,
    )
)
def test_lines_together_are_masked_as_each_alone(lines: list[bytes]) -> None:
    masker = Masker([Secret("hunter2-secret")])
    assert list(masker.mask_lines(lines)) == [masker.mask(line) for line in lines]
    assert list(Masker().mask_lines(lines)) == lines


def test_words_at_the_end_of_a_line_are_not_taken_for_the_beginning_of_a_secret() -> None:
    masker = Masker([Secret("postgres://gantry:hunter2@db.example.org:5432/gantry")])
    for line in (b"connecting to postgres", b"postgres://", b"deadbeef", b"5432/gantry ready"):
        assert masker.mask(line) == line


def test_each_line_of_a_secret_of_several_lines_is_masked() -> None:
    masker = Masker([Secret("-----BEGIN KEY-----\nMIIEvQIBADANBg\nAAAA1234\n-----END KEY-----\n")])
    assert masker.mask(b"  MIIEvQIBADANBg") == b"  ***"
    assert masker.mask(b"AAAA1234 tail") == b"*** tail"
    assert b"MIIE" not in masker.mask(rb"-----BEGIN KEY-----\nMIIEvQIBADANBg\nAAAA1234")


@settings(deadline=None, max_examples=50)  # a pattern for each value takes its time
@given(st.text(min_size=4, max_size=30).filter(lambda text: len(text.strip()) >= 4))
def test_no_value_survives_in_any_alignment(value: str) -> None:
    masker = Masker([Secret(value)])
    raw = value.encode()
    for before in (b"", b"x", b"xy"):
        text = base64.b64encode(before + raw)
        core = text[(0, 2, 3)[len(before)] : (len(before) + len(raw)) * 8 // 6]
        assert len(core) < 4 or core not in masker.mask(b"= " + text)
    if "\n" not in value and "\x1b" not in value and value.isprintable():
        assert raw not in masker.mask(b"[" + raw + b"]")


def test_text_without_the_secret_is_untouched() -> None:
    text = b"compiled 12 files \x1b[32mok\x1b[0m in 0.3 s"
    assert Masker([Secret("hunter2-hunter2")]).mask(text) == text
    assert Masker().mask(text) == text


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_writes_may_cut_a_secret_anywhere(tmp_path: Path, size: int) -> None:
    data = b"token=" + RAW + b"\nand " + base64.b64encode(RAW) + b"\n"
    with LogWriter(tmp_path / "1.log") as log:
        log.masker = Masker([Secret(VALUE)])
        for start in range(0, len(data), size):
            log.write(1, "out", data[start : start + size])
    assert [line.text for line in LogReader(tmp_path / "1.log")] == ["token=***", "and ***"]


@pytest.mark.parametrize("before", range(-len(RAW) - 2, 3))
def test_a_secret_where_a_long_line_is_split_is_masked(tmp_path: Path, before: int) -> None:
    path = tmp_path / "1.log"
    with LogWriter(path) as log:
        log.masker = Masker([Secret(VALUE)])
        data = b"x" * (LINE_CAP + before) + RAW + b"y" * LINE_CAP
        for start in range(0, len(data), 4096):
            log.write(1, "out", data[start : start + 4096])
    text = "".join(line.text for line in LogReader(path))
    assert "wörd" not in text
    assert text == "x" * (LINE_CAP + before) + "***" + "y" * LINE_CAP


CODES = [
    "\x1b(B\x1b[m", "\x1b[1;31m", "\x1b]8;;http://x\x1b\\", "\x1b]0;a\x1bb\x07", "\x1bM", "\x1b#8",
    "\x1b%G", "\x1b", "\x9b1m", "\x85", "\x7f", "\x08", "\x0c", "\0",
]  # fmt: skip


@pytest.mark.parametrize("code", CODES)
def test_codes_that_a_page_leaves_out_hide_no_secret(code: str) -> None:
    masker = Masker([Secret("hunter2-secret")])
    masked = masker.mask_text(f"a hunter2-{code}secret b")
    assert "secret" not in masked and plain(masked) == "a *** b"
    assert "secret" not in masker.mask_text(f"\x1b]0;hunter2-secret\x07 {code}")


@pytest.mark.parametrize("piece", [*CODES, "\x1b]", "\x1bP", "\x1b[", "\x1b[0;", "\x1b]\n"])
def test_a_line_of_control_codes_is_masked_in_linear_time(piece: str) -> None:
    line = piece * (65536 // len(piece))
    before = time.process_time()
    Masker([Secret("hunter2-secret")]).mask_text(line)
    assert time.process_time() - before < 1  # of quadratic time it took sixteen seconds

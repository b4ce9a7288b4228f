"""No password in any sentence: every error path is tried with a password in every place."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from common.config import load_config
from common.errors import ConfigError

# Upper case and digits, long: cannot occur in a sentence of ours by chance. No number, for those are shown.
SECRETS = st.from_regex(r"[A-Z]{2}[A-Z0-9]{5,20}[A-Z]{3}", fullmatch=True)
ODD = st.sampled_from(
    ["", ":", "@", "/", "#", "%", "'", '"', "\\", "*", "&", "!", "{", "}", "[", "${X", " ", "::"]
)

TEMPLATES = [
    "server: h:1\nmethod: {method}\npassword: {s}\n",
    "server: h:1\nmethod: {method}\npassword: {s}\nmode: udp_only\n",
    "server: h:1\nmethod: {method}\npassword: '{s}\n",
    'server: h:1\nmethod: {method}\npassword: "{s}\n',
    "server: h:1\nmethod: {method}\npassword:{s}\n",
    "server: h:1\npassword: {s}\n password: {s}\n",
    "{{server: h, password:{s}}}",
    "{{server: h, password: {{{s}: {s}, {s}: 1}}}}",
    "password: [{s}]\npassword_file: {s}/x\n",
    "- {s}\n",
    "{s}",
    "{s}: {s}\n? [{s}]\n: x\n",
    "server: ss://{method}:{s}@h\n",
    "server: [ss://{method}:{s}@h:1, 'ss://{s}', '{s}@h:1', 'h:{s}', '{s}:{s}:1']\nserver_port: {s}\n",
    "servers: [{{server: h, port: {s}, method: {method}, password: {s}, key: {s}, plugin: {s}}}, {s}]\n",
    "server: h:1\nmethod: {method}\nport_password: {{{s}: 1, 8388: {s}, 8389: [{s}], 99999: {s}}}\n",
    "auth: {{a: {s}, a: [{s}], '{s}:': {s}}}\n",
    "auth: [{s}, 'u:{s}', 'u:{s}x', {{user: u, password: {{{s}: 1}}}}, {{user: [{s}], password: {s}}}]\n",
    "timeout: {s}\nkeep_alive: {s}\nno_delay: {s}\nnofile: {s}\nverbose: {s}\nmode: {s}\nprotocol: {s}\n"
    "dns: [{s}]\nforbidden_ip: {s},{s}\nlocal: '{s}:{s}'\nlocal_port: {s}\nvia: '{s} {s}'\n"
    "version: {s}\nservers: {s}\n",
    "server: h:1\nmethod: {method}\npassword: {s}\nusers: [{{name: a, password: {s}}}, "
    "{{name: a, password: {s}x}}, {{name: [{s}], password: {s}}}, {{{s}: 1}}, {s}, "
    "{{name: b, password: {s}, {s}: {s}}}]\n",
    "server: h:1\nmethod: {method}\npassword: {s}:{s}\nusers: {{a: {s}, b: {s}, c: [{s}], d: {{{s}: 1}}}}\n",
    "servers: [{{server: h:1, method: {method}, users: {s}, mode: {s}, password: {s}}}]\nmode: {s}\n"
    "udp_timeout: {s}\nudp_max_associations: {s}\nacl: [{s}]\n"
    "reject: {s}\nlimits: {{connections: {s}, source_ipv4_prefix: '{s}', {s}: {s}}}\n",
    "limits: {s}\nreject: [{s}]\n",
    "server: h:1\nmethod: {method}\npassword: {s}\nlocals: [{{local: '{s}:{s}', protocol: {s}}}, {s}, "
    "{{local: 'unix:', auth: {s}, mode: {s}}}, {{local_port: {s}, target: '{s} {s}', acl: {{{s}: 1}}}}, "
    "{{protocol: tunnel, local_port: 5, forward_address: '{s}:x', auth: {{u: {s}}}}}, "
    "{{protocol: dns, target: h, local_dns_address: '{s}:{s}', remote_dns_port: {s}, local_udp_port: {s}}}, "
    "{{protocol: redir, local: 7, tcp_redir: {s}, udp_redir: {s}, tcp_tproxy: {s}, {s}: {s}}}]\n"
    "tunnel_remote: '{s}:{s}'\ntunnel_port: {s}\ndns_address: '{s}:{s}'\ntarget: '{s} {s}'\n",
    '{{"server": "h:1", "method": "{method}", "password": "{s}", "timeout": "{s}",}}',
    '{{"server": "h:1", "password": {s}}}',
    '{{"server": "h:1", "password": "{s}}}',
    '{{"password": "{s}", "password": "{s}" "{s}"}}',
    "ss://{method}:{s}@h:1",
    "ss://{method}:{s}@[h:1\nss://{s}@h:1",
]


def outcome(role, text, **options):
    """Return all that is ever shown of a configuration, refused or not."""
    try:
        config = load_config(role, text=text, environ={}, **options)
    except ConfigError as exc:
        if not exc.__suppress_context__ and exc.__context__ is not None:
            return repr(exc.__context__)  # a traceback would show it
        return "\n".join(exc.problems)
    return "\n".join([*config.warnings, *config.describe(), repr(config)])


@settings(max_examples=150)
@given(
    SECRETS,
    ODD,
    st.sampled_from(TEMPLATES),
    st.sampled_from(["aes-256-gcm", "2022-blake3-aes-256-gcm", "rc4-md5", "none", "nonsense"]),
    st.sampled_from(["sslocal", "ssserver"]),
    st.sampled_from(["c", "c.yaml", "c.json"]),
)
def test_no_password_in_any_problem_warning_or_repr(secret, odd, template, method, role, path):
    written = secret[:5] + odd + secret[5:]
    text = template.format(s=written, method=method)
    for options in (
        {},
        {"overrides": {"password": written}},
        {"overrides": {"protocol": written, "forward_address": f"{written} x", "mode": written}},
        {"overrides": {"server": f"ss://{method}:{written}@h:x", "auth": written}},
        {"url": f"ss://{written}"},
    ):
        shown = outcome(role, text, path=path, **options)
        assert secret[:5] not in shown
        assert secret[5:] not in shown

"""The project file of a federation: what ``nvflare provision`` makes kits and certificates of."""

from __future__ import annotations

import re
from collections.abc import Sequence

import yaml
from nvflare.apis.utils.format_check import name_check

from fedmepd.closest import one_of
from fedmepd.config import FUSION_SITE
from fedmepd.errors import SettingsError
from fedmepd.text_table import counted

_HEAD = """\
# A federation of a server, {count} and the people who work with it, made by `fedmepd project`. You may change it
# before you run `nvflare provision`; see provisioning/README.md. Results show the names of the sites. People of an
# organisation control the organisation's sites.
api_version: 3
name: {name}
description: FedMEPD, segmentation across hospitals with different modalities
# By default FLARE sends every site's error log to the server. The log may name cases and paths, so it must stay at the
# site. FLARE 2.9.0 reads this setting only here, for all sites; it ignores it at a single participant.
allow_log_streaming: false

participants:
  # The name must be the address at which every hospital reaches the server. Its certificate is valid for no other name.
  - name: {server}
    type: server
    org: coordinating_centre
    fed_learn_port: {port}

{sites}
  # May do everything: provision, add and remove sites, shut down.
  - {{name: {admin}, type: admin, org: coordinating_centre, role: project_admin}}
  # Submits jobs, and stops and downloads their own. In the server's organisation a lead could also disable sites and
  # shut the server down, so this lead belongs to another one.
  - {{name: {lead}, type: admin, org: research_group, role: lead}}
  # Stop and restart the site of one hospital each. Cannot submit jobs.
{people}
builders:
  - path: nvflare.lighter.impl.workspace.WorkspaceBuilder
    args:
      template_file: [master_template.yml]
  - path: nvflare.lighter.impl.static_file.StaticFileBuilder
    args:
      config_folder: config
  # All connections use mutual TLS. Each of the above gets a certificate of its own.
  - path: nvflare.lighter.impl.cert.CertBuilder
    args:
      root_valid_days: 1825
  - path: nvflare.lighter.impl.signature.SignatureBuilder
"""
_FUSION = """\
  # The fusion site: besides its own cases it has those with all modalities. The server has no cases at all. FLARE
  # treats it like any other site; the job names it (`fedmepd job export --fusion-site {name}`).
"""


def project_text(sites: Sequence[str], server: str, port: int, fusion_site: str = "", name: str = "fedmepd") -> str:
    """Returns the project file of a federation.

    Args:
        sites: their names, one hospital each.
        server: the address at which every hospital reaches the server.
        port: of the server.
        fusion_site: the site that has the cases for fusion training; empty: the server has them.
        name: of the project.

    Raises:
        SettingsError: a name cannot be one of its kind, or the fusion site is none of the sites.
    """
    if len(set(sites)) < len(sites) or not sites:
        raise SettingsError(f"--sites {','.join(sites)}: expected each name once")
    if FUSION_SITE in sites:
        raise SettingsError(f"--sites: {FUSION_SITE!r} is the name of the fusion site's data, choose another one")
    if fusion_site and fusion_site not in sites:
        raise SettingsError(f"--fusion-site {fusion_site}: {one_of(fusion_site, sites)}")
    if not 1 <= port <= 65535:
        raise SettingsError(f"--port {port}: expected 1 to 65535")
    for option, kind, values in (
        ("--sites", "client", sites),
        ("--server", "server", [server]),
        ("--name", "simple_name", [name]),
    ):
        for value in values:
            wrong, _ = name_check(value, kind)
            if wrong:
                raise SettingsError(
                    f"{option}: {value!r} cannot be such a name: expected letters, digits, dots, hyphens"
                )
    organisations = {site: re.sub(r"[^A-Za-z0-9_]", "_", site) for site in sites}
    if len(set(organisations.values())) < len(sites):
        raise SettingsError(f"--sites {','.join(sites)}: expected names that differ in letters or digits")
    lines, people = "", ""
    domain = _domain(server)
    for site, organisation in organisations.items():
        lines += _FUSION.format(name=site) if site == fusion_site else ""
        lines += f"  - {{name: {_plain(site)}, type: client, org: {_plain(organisation)}}}\n"
        people += (
            f"  - {{name: it@{_part(site)}.{domain}, type: admin, org: {_plain(organisation)}, role: org_admin}}\n"
        )
    return _HEAD.format(
        count=counted(len(sites), "hospital"),
        name=_plain(name),
        server=_plain(server),
        port=port,
        sites=lines,
        admin=f"admin@{domain}",
        lead=f"lead@{domain}",
        people=people,
    )


def _domain(server: str) -> str:
    """The part of a server's address that people's names may end in: FLARE expects addresses of e-mail."""
    is_address = re.fullmatch(r"[0-9.]+", server) or "." not in server
    return "fedmepd.local" if is_address else _part(server)


def _plain(name: str) -> str:
    """A name as YAML, which takes some words and all digits for something else."""
    return name if yaml.safe_load(name) == name else f'"{name}"'


def _part(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "-", name)

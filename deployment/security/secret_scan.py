"""Fail when a file of the repository holds what looks like a secret and is not known to be none.

    python deployment/security/secret_scan.py            prints file:line and kind of each finding, never the value
    python deployment/security/secret_scan.py --known    prints the findings as lines for the list of known ones

detect-secrets looks: keys and tokens by their form, credentials in URLs, private keys, values assigned to names of secrets,
random text. What is known to be no secret, such as an example, stands in `known_findings.txt` with a reason. A line may also
end in `# pragma: allowlist secret`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from detect_secrets import SecretsCollection
from detect_secrets.core.potential_secret import PotentialSecret
from detect_secrets.settings import transient_settings

ROOT = Path(__file__).resolve().parents[2]
KNOWN = Path(__file__).resolve().with_name("known_findings.txt")
# Hashes of files, of contracts and of packages: all random text, and no person writes there.
GENERATED = ("generation.json", "statements.lock.json", "requirements.lock", ".sha256", "registry/spec.py")
# Told by their own form, wherever they stand.
BY_FORM = (
    "ArtifactoryDetector", "AWSKeyDetector", "AzureStorageKeyDetector", "CloudantDetector",
    "DiscordBotTokenDetector", "GitHubTokenDetector", "GitLabTokenDetector", "IbmCloudIamDetector", "JwtTokenDetector",
    "MailchimpDetector", "NpmDetector", "OpenAIDetector", "PrivateKeyDetector", "PypiTokenDetector",
    "SendGridDetector", "SlackDetector", "SquareOAuthDetector", "StripeDetector", "TelegramBotTokenDetector",
    "TwilioKeyDetector",
)  # fmt: skip
# Told by their names, places and randomness. Tests are full of made-up ones.
BY_PLACE = (
    {"name": "BasicAuthDetector"},
    {"name": "KeywordDetector"},
    {"name": "Base64HighEntropyString", "limit": 4.5},
    {"name": "HexHighEntropyString", "limit": 3.0},
)
MADE_UP = ("tests/", "shared/testing/")
FILTERS = (
    "detect_secrets.filters.allowlist.is_line_allowlisted",
    "detect_secrets.filters.heuristic.is_indirect_reference",
    "detect_secrets.filters.heuristic.is_not_alphanumeric_string",
    "detect_secrets.filters.heuristic.is_potential_uuid",
    "detect_secrets.filters.heuristic.is_prefixed_with_dollar_sign",
    "detect_secrets.filters.heuristic.is_sequential_string",
    "detect_secrets.filters.heuristic.is_templated_secret",
)


def findings(names: list[str]) -> Iterator[tuple[str, PotentialSecret]]:
    """Yield what is found in files of the repository, by their names."""
    collection = SecretsCollection(root=str(ROOT))
    by_form = [{"name": name} for name in BY_FORM]
    with transient_settings(
        {"plugins_used": by_form, "filters_used": [{"path": path} for path in FILTERS]}
    ) as settings:
        for name in filter(_is_made_up, names):
            collection.scan_file(name)
        settings.configure_plugins([*BY_PLACE])
        for name in names:
            if not _is_made_up(name):
                collection.scan_file(name)
    yield from sorted(collection, key=lambda found: (found[0], found[1].line_number, found[1].type))


def _is_made_up(name: str) -> bool:
    return name.startswith(MADE_UP)


def known() -> set[tuple[str, str, str]]:
    """Return file, kind and hash of what is known to be no secret.

    Raises:
        SystemExit: a line has no reason, or is malformed.
    """
    entries = set()
    for number, line in enumerate(KNOWN.read_text(encoding="utf-8").splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        fields = [field.strip() for field in line.split("|")]
        if len(fields) != 4 or not all(fields):
            raise SystemExit(f"{KNOWN.name}:{number}: expected `file | kind | hash | reason`")
        entries.add((fields[0], fields[1], fields[2]))
    return entries


def tracked() -> list[str]:
    """Return the files of the repository that people write."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split(
        "\n"
    )
    files = [name for name in listed if name and not name.endswith(GENERATED)]
    return [name for name in files if (ROOT / name).is_file() and not (ROOT / name).is_symlink()]


def main(arguments: list[str]) -> int:
    """Scan; return an exit code."""
    found = list(findings(tracked()))
    if arguments == ["--known"]:
        for name, one in found:
            print(f"{name} | {one.type} | {one.secret_hash} | ")
        return 0
    allowed = known()
    new = [(name, one) for name, one in found if (name, one.type, one.secret_hash) not in allowed]
    for name, one in new:
        print(f"{name}:{one.line_number}: {one.type}: take it out, or list it in {KNOWN.relative_to(ROOT)}")
    gone = allowed - {(name, one.type, one.secret_hash) for name, one in found}
    for name, kind, _ in sorted(gone):
        print(f"note: {KNOWN.relative_to(ROOT)}: {name} has no such {kind} any more: remove the line")
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

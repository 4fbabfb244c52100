# SPDX-License-Identifier: Apache-2.0
"""Downloads a source distribution without building it.

`pip download` asks the build backend of a source distribution for its metadata, which runs the
package's code. This module stops one step earlier: pip's own link finder, with the user's index,
certificates and credentials, lists the files of a project; the one file wanted is then downloaded
through pip's session. It is the only module that uses pip's internal interface.
"""

from __future__ import annotations

import logging
from pathlib import Path

from models.fetch import DataUnavailable


def download_sdist(project: str, archive: str, folder: Path) -> None:
    """Writes the file `archive` of `project` into `folder`, byte for byte as in the registry.

    Raises `DataUnavailable` when no index lists the file or it cannot be downloaded.
    """
    try:
        from pip._internal.commands import create_command
        from pip._internal.commands.download import DownloadCommand
        from pip._internal.exceptions import PipError
        from pip._internal.index.collector import LinkCollector
        from pip._internal.index.package_finder import PackageFinder
        from pip._internal.models.selection_prefs import SelectionPreferences
        from pip._vendor.requests.exceptions import RequestException
    except ImportError as error:
        raise DataUnavailable(f"{archive}: this environment has no usable pip: {error}") from error
    logging.getLogger("pip").setLevel(logging.ERROR)  # an absent mirror is no news
    command = create_command("download")
    if not isinstance(command, DownloadCommand):
        raise DataUnavailable(f"{archive}: pip has no download command")
    options, _ = command.parse_args(["--quiet", "--retries", "2"])
    preferences = SelectionPreferences(allow_yanked=True, ignore_requires_python=True)
    try:
        with command.main_context():
            session = command.get_default_session(options)
            collector = LinkCollector.create(session, options=options)
            finder = PackageFinder.create(link_collector=collector, selection_prefs=preferences)
            links = [candidate.link for candidate in finder.find_all_candidates(project)]
            link = next((link for link in links if link.filename == archive), None)
            if link is None:
                raise DataUnavailable(f"{project}: no reachable index lists {archive}")
            response = session.get(link.url_without_fragment, stream=True)
            response.raise_for_status()
            with (folder / archive).open("wb") as stream:
                for block in response.iter_content(1 << 20):
                    stream.write(block)
    except (PipError, RequestException, OSError) as error:
        raise DataUnavailable(f"{project}: cannot download {archive}: {error}") from error

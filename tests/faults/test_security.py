"""What is served is served on this machine only, and a password stays where it was given."""

import base64
import importlib.util
import signal
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
from faults.backend import assert_uploaded_once, rows
from faults.servers import Server, free_port, kill_family, wait_until_listening
from place import Place

from cskd.utils.errors import first_line

SERVED = "the UI and the dashboard bind to 127.0.0.1"
PASSWORD_KEPT = "a tracking server with user and password: works, and the password is nowhere"
PASSWORD = "xX-s3cr3t+word-Yy"
SPELLINGS = [
    text.encode() for text in (PASSWORD, quote(PASSWORD), base64.b64encode(f"admin:{PASSWORD}".encode()).decode())
]
WAIT_SECONDS = 180  # only against hanging

# MLflow's basic auth asks for Flask-WTF, which protects its sign-up page and nothing else, and is not among its needs.
FLASK_WTF = """
class CSRFProtect:
    def init_app(self, app): pass
"""


@pytest.mark.fault(PASSWORD_KEPT)
@pytest.mark.parametrize(
    "address", ["http://me:{0}@host/x", "postgresql+psycopg://me:{0}@host", "x://h/d?password={0}"]
)
def test_an_error_that_names_an_address_is_shown_without_its_password(tally, address):
    with tally:
        for padding in (0, 170, 190):  # the line is cut to 200 characters: in the middle of the password, too
            message = first_line(ValueError("." * padding + f" cannot reach {address.format(PASSWORD)} now"))
            assert not any(PASSWORD[:length] in message for length in range(6, len(PASSWORD)))


@pytest.mark.fault(SERVED)
@pytest.mark.slow_fault
def test_what_is_served_is_served_on_this_machine_only(tally, tmp_path):
    place = Place(tmp_path)
    status, _, errors = place.run(
        "experiments tune", "--dataset", "digits", "--trials", "1",
        "--set", "schedule.epochs=2", "--set", "schedule.milestones=[1]",
    )  # fmt: skip
    assert (status, errors) == (0, "")
    for module in ("experiments ui", "experiments dashboard"):
        port = free_port()
        process = place.start(module, "--port", str(port))
        try:
            with tally:
                assert wait_until_listening(process, port) == {"127.0.0.1"}
                family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
                assert not [one.cmdline() for one in family if place.uri in one.cmdline()]
                process.send_signal(signal.SIGINT)  # to this process alone
                assert psutil.wait_procs(family, timeout=WAIT_SECONDS)[1] == []
        finally:
            if process.poll() is None:
                kill_family(process)


@pytest.fixture
def guarded(tmp_path):
    """A real server that wants to know who asks."""
    stand_in = tmp_path / "stand-in" / "flask_wtf"
    if importlib.util.find_spec("flask_wtf") is None:
        stand_in.mkdir(parents=True)
        (stand_in / "__init__.py").write_text("")
        (stand_in / "csrf.py").write_text(FLASK_WTF)
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "auth.ini").write_text(
        "[mlflow]\ndefault_permission = NO_PERMISSIONS\nadmin_username = admin\n"
        f"database_uri = sqlite:///{folder / 'auth.db'}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    server = Server(
        folder, "--app-name", "basic-auth",
        MLFLOW_AUTH_CONFIG_PATH=str(folder / "auth.ini"), MLFLOW_AUTH_ADMIN_PASSWORD=PASSWORD,
        MLFLOW_FLASK_SERVER_SECRET_KEY="a key of the tests", PYTHONPATH=str(stand_in.parent),
    )  # fmt: skip
    yield server.start()
    server.kill()


def found_in(folder: Path) -> list[Path]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return [path for path in files if any(text in path.read_bytes() for text in SPELLINGS)]


@pytest.mark.fault(PASSWORD_KEPT)
@pytest.mark.slow_fault
def test_a_server_with_a_password_works_and_the_password_is_nowhere(tally, tmp_path, request):
    guarded = request.getfixturevalue("guarded")
    at = guarded.uri.removeprefix("http://")
    wrong = quote(PASSWORD) + "x"
    ways = {
        "environment": {"MLFLOW_TRACKING_URI": guarded.uri, "MLFLOW_TRACKING_USERNAME": "admin"}
        | {"MLFLOW_TRACKING_PASSWORD": PASSWORD},
        "address": {"MLFLOW_TRACKING_URI": f"http://admin:{quote(PASSWORD)}@{at}"},
        "wrong": {"MLFLOW_TRACKING_URI": f"http://admin:{wrong}@{at}"},
        "away": {"MLFLOW_TRACKING_URI": f"http://admin:{quote(PASSWORD)}@127.0.0.1:{free_port()}"},
    }
    lost = []
    for number, (way, environment) in enumerate(ways.items(), start=1):
        place = Place(tmp_path / "places" / way)
        place.environment |= environment
        works = way in ("environment", "address")
        try:
            with tally:
                status, output, errors = place.run(
                    "experiments grid", "demo", "--methods", "cs-kd", "--seeds", "0", "--set", "schedule.epochs=2",
                    "--set", "schedule.milestones=[1]", "--set", f"schedule.lr=0.1{number}",
                )  # fmt: skip
                assert (status, errors) == (0, "")
                assert ("All is tracked in MLflow" in output) is works
                message = [output]
                further = ("experiments ui", "analysis tables", "analysis report") if way == "address" else ()
                for module in ("experiments sync", *further):
                    status, output, errors = place.run(module)
                    message += [output, errors]
                    assert (status == 0) is works, message
                if works:
                    assert_uploaded_once(guarded.database, place.folders(), guarded.folder / "artifacts")
                assert not any(text.decode() in line for text in SPELLINGS for line in message), message
                assert found_in(place.folder) == []
        except AssertionError as error:
            lost.append(f"{way}: {error}")
    with tally:
        assert found_in(guarded.folder) == []
        assert not rows(guarded.database, "SELECT * FROM tags WHERE value LIKE ?", f"%{PASSWORD}%")
    assert not lost, "\n\n".join(lost)

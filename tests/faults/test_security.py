"""The UI and the dashboard serve this machine only, and a password is written nowhere."""

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

# MLflow's basic auth imports Flask-WTF for its sign-up page, but does not install it.
FLASK_WTF = """
class CSRFProtect:
    def init_app(self, app): pass
"""


@pytest.mark.fault(PASSWORD_KEPT)
@pytest.mark.parametrize(
    "address", ["http://me:{0}@host/x", "postgresql+psycopg://me:{0}@host", "x://h/d?password={0}"]
)
def test_error_with_an_address_hides_the_password(tally, address):
    with tally:
        for padding in (0, 170, 190):  # the line is cut at 200 characters, also inside the password
            message = first_line(ValueError("." * padding + f" cannot reach {address.format(PASSWORD)} now"))
            assert not any(PASSWORD[:length] in message for length in range(6, len(PASSWORD)))


@pytest.mark.fault(SERVED)
@pytest.mark.slow_fault
def test_ui_and_dashboard_listen_on_this_machine_only(tally, tmp_path):
    place = Place(tmp_path)
    status, _, errors = place.run(
        "experiments tune", "--dataset", "digits", "--trials", "1",
        "--set", "schedule.epochs=2", "--set", "schedule.milestones=[1]",
    )  # fmt: skip
    assert (status, errors) == (0, "")
    for command in ("experiments ui", "experiments dashboard"):
        port = free_port()
        process = place.start(command, "--port", str(port))
        try:
            with tally:
                assert wait_until_listening(process, port) == {"127.0.0.1"}
                processes = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
                assert not [process.cmdline() for process in processes if place.uri in process.cmdline()]
                process.send_signal(signal.SIGINT)  # not to its children
                assert psutil.wait_procs(processes, timeout=WAIT_SECONDS)[1] == []
        finally:
            if process.poll() is None:
                kill_family(process)


@pytest.fixture
def guarded(tmp_path):
    """An MLflow server with basic authentication."""
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
        MLFLOW_FLASK_SERVER_SECRET_KEY="a test key", PYTHONPATH=str(stand_in.parent),
    )  # fmt: skip
    yield server.start()
    server.kill()


def files_with_password(folder: Path) -> list[Path]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return [path for path in files if any(text in path.read_bytes() for text in SPELLINGS)]


@pytest.mark.fault(PASSWORD_KEPT)
@pytest.mark.slow_fault
def test_password_of_a_server_is_written_nowhere(tally, tmp_path, request):
    guarded = request.getfixturevalue("guarded")
    host = guarded.uri.removeprefix("http://")
    wrong = quote(PASSWORD) + "x"
    cases = {
        "environment": {"MLFLOW_TRACKING_URI": guarded.uri, "MLFLOW_TRACKING_USERNAME": "admin"}
        | {"MLFLOW_TRACKING_PASSWORD": PASSWORD},
        "address": {"MLFLOW_TRACKING_URI": f"http://admin:{quote(PASSWORD)}@{host}"},
        "wrong": {"MLFLOW_TRACKING_URI": f"http://admin:{wrong}@{host}"},
        "away": {"MLFLOW_TRACKING_URI": f"http://admin:{quote(PASSWORD)}@127.0.0.1:{free_port()}"},
    }
    lost = []
    for number, (case, environment) in enumerate(cases.items(), start=1):
        place = Place(tmp_path / "places" / case)
        place.environment |= environment
        works = case in ("environment", "address")
        try:
            with tally:
                status, output, errors = place.run(
                    "experiments grid", "demo", "--methods", "cs-kd", "--seeds", "0", "--set", "schedule.epochs=2",
                    "--set", "schedule.milestones=[1]", "--set", f"schedule.lr=0.1{number}",
                )  # fmt: skip
                assert (status, errors) == (0, "")
                assert ("All is tracked in MLflow" in output) is works
                printed = [output]
                further = ("experiments ui", "analysis tables", "analysis report") if case == "address" else ()
                for command in ("experiments sync", *further):
                    status, output, errors = place.run(command)
                    printed += [output, errors]
                    assert (status == 0) is works, printed
                if works:
                    assert_uploaded_once(guarded.database, place.folders(), guarded.folder / "artifacts")
                assert not any(text.decode() in line for text in SPELLINGS for line in printed), printed
                assert files_with_password(place.folder) == []
        except AssertionError as error:
            lost.append(f"{case}: {error}")
    with tally:
        assert files_with_password(guarded.folder) == []
        assert not rows(guarded.database, "SELECT * FROM tags WHERE value LIKE ?", f"%{PASSWORD}%")
    assert not lost, "\n\n".join(lost)

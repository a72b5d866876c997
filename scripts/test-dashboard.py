"""Cases of scripts/test-dashboard.sh: the whole system as processes, and the dashboard in a headless Chromium.

Every case waits for a state with a limit. All processes are this script's own and end with it.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

from playwright.sync_api import sync_playwright

RATE = 200


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def until(what, holds, limit=15.0):
    """Waits until something holds, and returns how long that took."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > limit:
            raise AssertionError(f"no {what} in {limit} s")
        time.sleep(0.02)
    return time.monotonic() - began


class System:
    """etcd, a gateway with actions, and as many greeters as wanted."""

    def __init__(self, bin_dir, work):
        self.bin, self.work, self.running, self.greeters = bin_dir, work, {}, {}
        self.etcd_port, self.peer_port = free_port(), free_port()
        self.registry = f"etcd://127.0.0.1:{self.etcd_port}"
        self.start_etcd()
        self.start("gateway", self.bin / "service-gateway", "--registry", self.registry, "--listen", "127.0.0.1:0",
                   "--admin-listen", "127.0.0.1:0", "--admin-actions", "--keep-unconfirmed", "3s")
        line = self.said("gateway", " listening ")
        self.address, self.admin = (line.split(f"{key}=")[1].split()[0] for key in ("address", "admin"))

    def start(self, name, *command):
        log = open(self.work / f"{name}.log", "a")
        command = [str(word) for word in command]
        self.running[name] = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"ETCDCTL_API": "3"})

    def stop(self, name, how=signal.SIGTERM):
        process = self.running.pop(name)
        process.send_signal(how)
        process.wait(20)

    def said(self, name, text):
        lines = []

        def found():
            lines[:] = [line for line in (self.work / f"{name}.log").read_text().splitlines() if text in line]
            return lines

        until(f"'{text}' in the log of {name}", found)
        return lines[-1]

    def start_etcd(self):
        client, peer = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{self.peer_port}"
        self.start("etcd", "etcd", "--data-dir", self.work / "etcd", "--name", "test", "--log-level", "error",
                   "--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer,
                   "--initial-advertise-peer-urls", peer, "--initial-cluster", f"test={peer}")

        def healthy():
            return subprocess.run(["etcdctl", "--endpoints", client, "endpoint", "health"], capture_output=True).returncode == 0

        until("healthy etcd", healthy)

    def etcdctl(self, *words, text=None):
        command = ["etcdctl", "--endpoints", f"http://127.0.0.1:{self.etcd_port}", *words]
        return subprocess.run(command, input=text, text=True, capture_output=True, check=True).stdout

    def greeter(self, version, *flags, ttl="5s"):
        """Starts one, and returns its address as soon as it is registered."""
        name = f"greeter-{len(self.greeters) + 1}"
        self.start(name, self.bin / "service-greeter", "--registry", self.registry, "--ttl", ttl, "--drain", "200ms",
                   "--tag", f"version={version}", "--tag", "region=cn", *(flags or ("--listen", "127.0.0.1:0")))
        address = self.said(name, " registered ").split("address=")[1].split()[0]
        self.greeters[address] = name
        return address

    def load(self, seconds):
        self.start("load", self.bin / "load", f"http://{self.address}/greeter/greet/Ada",
                   "--rate", RATE, "--duration", f"{seconds}s")

    def end(self):
        for name in sorted(self.running, key=lambda name: name == "etcd"):
            self.running[name].terminate()
            self.running[name].wait(20)


class Dashboard:
    """The page in a browser, which must stay without errors and ask no other host."""

    def __init__(self, browser, system, language="en-US", scheme="light", width=1280, height=900):
        self.system, self.problems = system, []
        self.context = browser.new_context(locale=language, color_scheme=scheme, viewport={"width": width, "height": height})
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.note(message.type, message.text))
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("request", lambda request: self.asked(request.url))
        self.page.goto(f"http://{system.admin}/")

    def note(self, kind, text):
        # That the feed breaks off is no error of the page's where the gateway has gone.
        if kind in ("error", "warning"):
            self.problems.append(f"{kind}: {text}")

    def asked(self, url):
        if not url.startswith(f"http://{self.system.admin}/"):
            self.problems.append(f"a request to {url}")

    def wait(self, condition, limit=15):
        """Waits for an expression of JavaScript, and returns how long that took."""
        # Playwright's own wait runs inside the page, whose policy forbids that.
        return until(condition, lambda: self.page.evaluate(condition), limit)

    def count(self, count, state="up", limit=15):
        return self.wait(f"""document.querySelectorAll('.node[data-state="{state}"]').length === {count}""", limit)

    def shows(self, address, state, limit=15):
        return self.wait(f"""document.querySelector('[data-instance="{address}"]')?.dataset.state === {json.dumps(state)}""", limit)

    def lacks(self, address, limit=15):
        return self.wait(f"""!document.querySelector('[data-instance="{address}"]')""", limit)

    def says(self, text, limit=15):
        return self.wait(f"document.body.innerText.includes({json.dumps(text)})", limit)

    def rate(self, address):
        words = self.page.locator(f'[data-instance="{address}"] .rate').inner_text()
        return float(words.replace(",", "").removesuffix("/s"))

    def close(self):
        self.context.close()
        assert not self.problems, self.problems


# --- the cases, one after another on one system ---


def three_nodes_are_drawn_with_their_shares(system, dashboard):
    dashboard.count(3)
    assert dashboard.page.locator("body").get_attribute("data-registry") == "connected"
    for address in system.greeters:
        node = dashboard.page.locator(f'[data-instance="{address}"]')
        assert node.count() == 1 and node.get_attribute("data-version") in ("v1", "v2"), address
        assert "region=cn" in node.inner_text()
    system.load(120)
    third = RATE / 3
    until("even shares", lambda: all(abs(dashboard.rate(address) - third) < third / 5 for address in system.greeters))
    dashboard.says("v1 · 67 %")
    dashboard.says("v2 · 33 %")


def a_fourth_that_joins_is_seen_within_half_a_second(system, dashboard):
    address = system.greeter("v2")
    took = dashboard.shows(address, "up")
    assert took < 0.5, took
    dashboard.says(f"{address} (v2) added")
    until("its share", lambda: abs(dashboard.rate(address) - RATE / 4) < RATE / 20)


def one_that_leaves_is_gone_within_half_a_second(system, dashboard):
    address, name = next(reversed(system.greeters.items()))
    # It leaves the list first, and ends after its drain time and a little more.
    system.stop(name)
    took = dashboard.lacks(address)
    assert took < 0.5, took
    dashboard.says(f"{address} (v2) removed")


def one_that_is_killed_is_ejected_and_then_gone(system, dashboard):
    address, name = next(iter(system.greeters.items()))
    system.stop(name, signal.SIGKILL)
    dashboard.shows(address, "ejected", limit=3)
    dashboard.says(f"{address} (v1) ejected: unreachable")
    dashboard.lacks(address)
    failures = dashboard.page.locator('[data-of="failures"] dd > small').inner_text()
    assert failures == "0 in all", failures


def a_drained_node_gets_nothing_until_it_is_released(system, dashboard):
    address = list(system.greeters)[1]
    node = dashboard.page.locator(f'[data-instance="{address}"]')
    node.get_by_role("button").click()
    dashboard.shows(address, "draining")
    until("no requests to it", lambda: dashboard.rate(address) == 0)
    with urllib.request.urlopen(f"http://{system.admin}/api/instances") as answer:
        told = json.load(answer)["services"][0]["instances"]
    assert [node["instance"] for node in told if node["state"] == "draining"] == [address]
    node.get_by_role("button").focus()
    dashboard.page.keyboard.press("Enter")
    dashboard.shows(address, "up")
    until("its share", lambda: dashboard.rate(address) > RATE / 4)


def etcd_goes_and_comes_and_the_nodes_stay(system, dashboard):
    nodes = dashboard.page.locator(".node").count()
    system.stop("etcd", signal.SIGKILL)
    dashboard.wait("document.body.dataset.registry === 'away'")
    dashboard.says(f"registry disconnected, serving the last known {nodes} nodes")
    dashboard.count(nodes)
    system.start_etcd()
    dashboard.wait("document.body.dataset.registry === 'connected'", limit=30)
    dashboard.says("registry reconnected")
    dashboard.count(nodes)


def two_hundred_nodes_are_drawn(system, dashboard):
    # One process answers at all addresses of the loopback network, so all of them are really there.
    port = free_port()
    many = system.greeter("v1", "--listen", f"0.0.0.0:{port}", "--advertise", f"127.0.1.1:{port}")
    lease = system.etcdctl("lease", "grant", "120").split()[1]

    def put(number):
        ip, version = f"127.0.1.{number}", f"v{number % 3 + 1}"
        value = {"ServiceName": "greeter", "IP": ip, "Port": port, "Tags": {"version": version}}
        return f"put /services/greeter/{ip}:{port} {json.dumps(json.dumps(value))} --lease={lease}"

    dashboard.shows(many, "up")
    before = dashboard.page.locator(".node").count()
    for half in (range(2, 102), range(102, 202)):
        # A transaction of etcd's has 128 operations at most: no compares, these puts, and no others.
        system.etcdctl("txn", text="\n" + "\n".join(map(put, half)) + "\n\n\n")
    dashboard.count(before + 200)
    frames = dashboard.page.evaluate("""() => new Promise((done) => {
        let frames = 0;
        const began = performance.now();
        const count = () => (performance.now() - began < 2000 ? (frames++, requestAnimationFrame(count)) : done(frames / 2));
        requestAnimationFrame(count);
    })""")
    assert frames > 15, f"{frames} frames a second"
    overflow = dashboard.page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert overflow <= 0, f"{overflow} px too wide"
    first = dashboard.page.locator(".node").first
    first.focus()
    dashboard.page.keyboard.press("ArrowRight")
    focused = dashboard.page.evaluate("document.activeElement.dataset.instance")
    assert focused != first.get_attribute("data-instance"), focused
    system.etcdctl("lease", "revoke", lease)
    dashboard.count(200, "unconfirmed")
    dashboard.count(before, limit=30)


def a_page_opened_later_knows_what_happened_and_fits_a_telephone(system, dashboard):
    late = Dashboard(dashboard.context.browser, system, language="zh-CN", scheme="dark", width=400, height=800)
    late.says("节点")
    late.says("注册中心失联")
    assert late.page.locator("html").get_attribute("lang") == "zh"
    overflow = late.page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert overflow <= 0, f"{overflow} px too wide"
    late.close()


CASES = [
    three_nodes_are_drawn_with_their_shares,
    a_fourth_that_joins_is_seen_within_half_a_second,
    one_that_leaves_is_gone_within_half_a_second,
    one_that_is_killed_is_ejected_and_then_gone,
    a_drained_node_gets_nothing_until_it_is_released,
    etcd_goes_and_comes_and_the_nodes_stay,
    two_hundred_nodes_are_drawn,
    a_page_opened_later_knows_what_happened_and_fits_a_telephone,
]


def take_pictures(system, browser, directory):
    """The README's: under load, one node just ejected, in light and dark."""
    directory.mkdir(parents=True, exist_ok=True)
    system.load(150)
    dashboards = {scheme: Dashboard(browser, system, scheme=scheme, height=760) for scheme in ("light", "dark")}
    for dashboard in dashboards.values():
        dashboard.wait(f"parseInt(document.querySelector('#totals b').textContent) > {RATE * 0.9}")
    system.greeter("v2", ttl="60s")  # it stays listed for as long as the pictures take
    time.sleep(80)  # no state to wait for: the line of the totals is to be seen
    killed = next(reversed(system.greeters))
    system.stop(system.greeters.pop(killed), signal.SIGKILL)
    for scheme, dashboard in dashboards.items():
        dashboard.shows(killed, "ejected")
        until("no requests to it", lambda: dashboard.rate(killed) == 0)
        path = directory / f"dashboard-{scheme}.png"
        dashboard.page.screenshot(path=path)
        dashboard.close()
        size = path.stat().st_size
        assert size < 150_000, f"{path} has {size} bytes"
    system.stop("load")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--pictures", type=pathlib.Path)
    arguments = parser.parse_args()
    work = pathlib.Path(tempfile.mkdtemp())
    system = System(arguments.bin.absolute(), work)
    try:
        with sync_playwright() as playwright:
            # Its sandbox needs what containers and root do not have. The only page it opens is ours.
            browser = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=["--no-sandbox"])
            for version in ("v1", "v1", "v2"):
                system.greeter(version)
            if arguments.pictures:
                take_pictures(system, browser, arguments.pictures)
            else:
                run(system, browser)
            browser.close()
    except BaseException:
        for log in sorted(work.glob("*.log")):
            print(f"--- {log.name}", *log.read_text().splitlines()[-15:], sep="\n", file=sys.stderr)
        raise
    finally:
        system.end()
        shutil.rmtree(work)


def run(system, browser):
    dashboard = Dashboard(browser, system)
    for case in CASES:
        began = time.monotonic()
        case(system, dashboard)
        print(f"ok  {case.__name__.replace('_', ' ')} ({time.monotonic() - began:.1f} s)", flush=True)
    dashboard.close()


if __name__ == "__main__":
    main()

# Prints what jellyfin-apiclient-python sends for the questions of `media-assets jellyfin fetch`, as
# jellyfin_apiclient_python.json has it:
#   pip install jellyfin-apiclient-python && python record.py > jellyfin_apiclient_python.json
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version

from jellyfin_apiclient_python import JellyfinClient

requests = []


class Recorder(BaseHTTPRequestHandler):
    def do_GET(self):
        names = ("accept", "authorization")
        requests.append({"method": self.command, "target": self.path} | {name: self.headers[name] for name in names})
        body = b'{"Items":[],"TotalRecordCount":0,"StartIndex":0}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Recorder)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = JellyfinClient()
client.config.app("recorder", "1", "recorder", "recorder")
client.config.data["auth.ssl"] = False
client.config.data["auth.server"] = f"http://127.0.0.1:{server.server_port}/base"
client.config.data["auth.user_id"] = "u"
client.config.data["auth.token"] = "the-key"
client.jellyfin.items(params={"ids": ",".join(["i1", "i2", "i3", "i4"]), "enableUserData": False})
client.jellyfin.items(params={
    "searchTerm": "Title 10", "recursive": True, "enableUserData": False, "startIndex": 0, "limit": 100,
    "minPremiereDate": "2025-10-01T00:00:00.000Z", "maxPremiereDate": "2025-10-01T23:59:59.999Z",
})
server.shutdown()
print(json.dumps({"origin": f"jellyfin-apiclient-python {version('jellyfin-apiclient-python')} (PyPI)", "requests": requests}, indent=2))

"""schemathesis on the OpenAPI documents of an apiserver: what it makes of them is sent, and what is answered has to fit.

    conformity.py SERVER CA CERTIFICATE KEY SECONDS [WORD]

Operations of all groups and versions come in an order that KEELSON_FUZZ_SEED decides, until the time is over; a word
chooses those whose path has it. Kubernetes documents success and 401 alone: every other refusal has to be a Status that
says the same code. It ends with a list of what did not fit.
"""

import json
import os
import random
import sys
import time

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

EXAMPLES = 4
# Connections to kubelets and backends, which are none here, and streams, which have no end.
TUNNELS = ("/proxy", "/exec", "/attach", "/portforward", "/log", "/watch/")
# What the namespace of all requests, and requests themselves, depend on.
SPARED = ("/api/v1/namespaces/{name}", "/api/v1/namespaces")


class Server:
    def __init__(self, address, ca, certificate, key):
        self.address = address
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify, self.session.cert = ca, (certificate, key)

    def document(self, path):
        answer = self.session.get(self.address + path, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def operations(self):
        """All operations of all documents."""
        for path, entry in sorted(self.document("/openapi/v3")["paths"].items()):
            schema = schemathesis.openapi.from_dict(self.document(entry["serverRelativeURL"]))
            for found in schema.get_all_operations():
                operation = found.ok()
                if not any(tunnel in operation.path for tunnel in TUNNELS):
                    yield operation

    def send(self, case):
        # A stream has no end that could be waited for.
        query = {k: v for k, v in (case.query or {}).items() if k not in ("watch", "timeoutSeconds")}
        case.query = query
        parameters = case.path_parameters or {}
        if "namespace" in parameters:
            parameters["namespace"] = "default"
        if case.method == "DELETE" and case.operation.path in SPARED:
            query["dryRun"] = "All"
        tls = {"verify": self.session.verify, "cert": self.session.cert}
        return case.call(base_url=self.address, session=self.session, timeout=60, **tls)


def complaint(case, response):
    """What is wrong with an answer, if anything."""
    if 400 <= response.status_code < 500:
        try:
            status = response.json()
        except ValueError:
            return "a refusal that is no JSON: %.200r" % response.content
        if status.get("kind") != "Status" or status.get("code") != response.status_code:
            return "a refusal that is no Status of its code: %.300s" % json.dumps(status)
        return None
    try:
        case.validate_response(
            response, checks=[not_a_server_error, content_type_conformance, response_schema_conformance]
        )
    except Exception as error:  # Groups of failures, and failures.
        failures = getattr(error, "exceptions", [error])
        return "; ".join(" ".join(str(failure).split())[:600] for failure in failures)
    return None


def examine(server, operation, number, found):
    told = {}

    @seed(number)
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def example(case):
        response = server.send(case)
        told[response.status_code] = told.get(response.status_code, 0) + 1
        why = complaint(case, response)
        if why:
            found.append((operation.label, response.status_code, case.as_curl_command()[:600], why))

    example()
    return told


def main():
    address, ca, certificate, key, seconds, *word = sys.argv[1:]
    server = Server(address, ca, certificate, key)
    end = time.monotonic() + float(seconds)
    number = int(os.environ.get("KEELSON_FUZZ_SEED", "1"))
    operations = [one for one in server.operations() if all(w in one.path for w in word)]
    random.Random(number).shuffle(operations)
    found, codes, done = [], {}, 0
    for operation in operations:
        if time.monotonic() > end:
            break
        for code, count in examine(server, operation, number, found).items():
            codes[code] = codes.get(code, 0) + count
        done += 1
    print("%d of %d operations, answers by code: %s" % (done, len(operations), sorted(codes.items())))
    for label, code, command, why in found:
        print("\n%s answered %d: %s\n  %s" % (label, code, why, command))
    sys.exit(1 if found or not done else 0)


main()

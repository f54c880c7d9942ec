"""The web application: which address answers what."""

from collections.abc import Awaitable, Callable
from importlib.metadata import version
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from fre_runtime.errors import FreError, ImageError
from fre_runtime.serve import kserve
from fre_runtime.serve.guard import Access, Guard, refusal
from fre_runtime.serve.json_answer import JsonAnswer
from fre_runtime.serve.limits import Limits
from fre_runtime.serve.pages import load_page
from fre_runtime.serve.service import Service

COOKIE_SECONDS = 30 * 24 * 3600
"""So long a browser stays logged in, unless the token changes."""

Endpoint = Callable[[Request], Awaitable[Response]]


def make_app(service: Service, access: Access, limits: Limits) -> ASGIApp:
    """Put the page, its data and the KServe endpoints together."""
    routes = [
        *_page_routes(service, limits),
        *_kserve_routes(service, limits),
        Route("/login", _login(access), methods=["POST"]),
    ]
    handlers = {
        HTTPException: _say_http,
        FreError: _say_ours,
        ClientDisconnect: _say_gone,
        Exception: _say_bug,
    }
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return Guard(app, access, load_page("login.html", 401))


def _page_routes(service: Service, limits: Limits) -> list[Route]:
    page = load_page("page.html")
    about = {**service.about(), "max_upload": limits.max_bytes}

    async def show(request: Request) -> Response:
        return page

    async def model(request: Request) -> Response:
        return JsonAnswer(about)

    async def state(request: Request) -> Response:
        return JsonAnswer(service.state(_number(request.query_params.get("since", "0"))))

    def live(request: Request) -> Response:  # in a thread: it encodes
        return _jpeg(service.board.picture() if service.board else None)

    def anomaly(request: Request) -> Response:
        number = _number(request.path_params["number"])
        return _jpeg(service.board.anomaly(number) if service.board else None, keep=True)

    def reset_drift(request: Request) -> Response:  # in a thread: it waits for the scorer
        service.reset_drift()
        return JsonAnswer({})

    async def score(request: Request) -> Response:
        wanted = request.query_params.get("picture") == "1"
        async with limits.body(request) as data:
            return JsonAnswer(
                await limits.work(lambda: service.try_photo(data, with_picture=wanted))
            )

    return [
        Route("/", show),
        Route("/api/model", model),
        Route("/api/state", state),
        Route("/api/live.jpg", live),
        Route("/api/anomalies/{number}.jpg", anomaly),
        Route("/api/score", score, methods=["POST"]),
        Route("/api/drift/reset", reset_drift, methods=["POST"]),
    ]


def _kserve_routes(service: Service, limits: Limits) -> list[Route]:
    detector, card = service.detector, service.detector.card
    about_server = kserve.server_metadata(version("fre-edge"))
    about_model = kserve.model_metadata(card, detector.info.engine, detector.metadata)

    async def server(request: Request) -> Response:
        return JsonAnswer(about_server)

    async def live(request: Request) -> Response:
        return JsonAnswer({"live": True})

    async def ready(request: Request) -> Response:
        return JsonAnswer({"ready": True})

    async def model(request: Request) -> Response:
        return JsonAnswer(about_model)

    async def model_ready(request: Request) -> Response:
        return JsonAnswer({"name": card.name, "ready": True})

    async def infer(request: Request) -> Response:
        async with limits.body(request) as body:
            length = request.headers.get(kserve.JSON_LENGTH)

            def answer() -> tuple[bytes, dict[str, str]]:
                asked = kserve.parse_request(body, length, card.graph)
                return kserve.format_answer(card, asked, detector.infer(asked.batch))

            content, headers = await limits.work(answer)
            return Response(content, headers=headers)

    def of_this_model(endpoint: Endpoint) -> Endpoint:
        async def checked(request: Request) -> Response:
            name, number = request.path_params["name"], request.path_params.get("version", "1")
            if (name, number) != (card.name, "1"):
                raise HTTPException(404, f"the only model here is {card.name!r}, version 1")
            return await endpoint(request)

        return checked

    routes = [
        Route("/v2", server),
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
    ]
    for base in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        routes += [
            Route(base, of_this_model(model)),
            Route(f"{base}/ready", of_this_model(model_ready)),
            Route(f"{base}/infer", of_this_model(infer), methods=["POST"]),
        ]
    return routes


def _login(access: Access) -> Endpoint:
    """Take the token from the login form and leave it in a cookie that scripts cannot read."""
    wrong = load_page("login.html", 403)

    async def login(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > 1024:
                raise HTTPException(413, "a token is shorter than this")
        given = parse_qs(body.decode("latin-1")).get("token", [""])[0]
        if not access.matches(given):
            return wrong
        answer = RedirectResponse("./", 303)
        answer.set_cookie(
            access.cookie,
            given,
            max_age=COOKIE_SECONDS,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer

    return login


def _jpeg(data: bytes | None, *, keep: bool = False) -> Response:
    if data is None:
        raise HTTPException(404, "there is no such picture")
    headers = {"Cache-Control": "private, max-age=3600"} if keep else None
    return Response(data, headers=headers, media_type="image/jpeg")


def _number(text: str) -> int:
    """A count from an address; what is none counts as 0."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0


async def _say_http(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else None
    return refusal(status, str(getattr(error, "detail", error)), headers)


async def _say_ours(request: Request, error: Exception) -> Response:
    """What was sent is wrong, or the engine failed at it."""
    wrong_input = isinstance(error, ImageError | kserve.ProtocolError)
    return refusal(400 if wrong_input else 500, str(error))


async def _say_gone(request: Request, error: Exception) -> Response:
    """Who hangs up in the middle of a body hears nothing, and is no fault that the log tells."""
    return refusal(400, "the body broke off")


async def _say_bug(request: Request, error: Exception) -> Response:
    return refusal(500, "an error of fre-serve itself; its log says more")

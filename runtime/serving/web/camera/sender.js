// Video of this browser, sent to the server by WHIP (RFC 9725).

const GATHERING_MS = 2000;
const MAX_BITRATE = 3_000_000;

/** Sends one video track. Dispatches `end` once the connection has ended, with the reason in `detail`. */
export class Sender extends EventTarget {
  /** Name of the stream on the server. */
  stream = null;

  #connection = null;
  #session = null;
  #ended = false;

  /** Starts to send; throws an Error with a text for the user. */
  async start(track, address) {
    // No STUN server is asked: the server is reached directly.
    const connection = (this.#connection = new RTCPeerConnection({ iceServers: [] }));
    const { sender } = connection.addTransceiver(track, { direction: "sendonly", sendEncodings: [{ maxBitrate: MAX_BITRATE }] });
    connection.onconnectionstatechange = () => {
      if (["failed", "closed"].includes(connection.connectionState)) {
        this.end("The connection for the video has ended. The server's log has the reason.");
      }
    };
    // The server starts again with each new size, so on a slow network the frame rate falls instead.
    await sender.setParameters({ ...sender.getParameters(), degradationPreference: "maintain-resolution" }).catch(() => {});
    await connection.setLocalDescription();
    await gathered(connection);
    const response = await fetch(address, {
      method: "POST",
      headers: { "Content-Type": "application/sdp" },
      body: connection.localDescription.sdp,
    });
    const text = await response.text();
    if (response.status !== 201) throw new Error(text.trim().slice(0, 300) || `HTTP ${response.status}`);
    this.#session = new URL(response.headers.get("Location"), response.url);
    this.stream = decodeURIComponent(response.headers.get("Unmask-Stream") ?? "");
    await connection.setRemoteDescription({ type: "answer", sdp: text });
  }

  end(reason = "") {
    if (this.#ended) return;
    this.#ended = true;
    this.#connection?.close();
    // Also while the page is being closed.
    if (this.#session) fetch(this.#session, { method: "DELETE", keepalive: true }).catch(() => {});
    this.dispatchEvent(new CustomEvent("end", { detail: reason }));
  }
}

function gathered(connection) {
  return new Promise((resolve) => {
    const check = () => connection.iceGatheringState === "complete" && resolve();
    connection.onicegatheringstatechange = check;
    setTimeout(resolve, GATHERING_MS);
    check();
  });
}

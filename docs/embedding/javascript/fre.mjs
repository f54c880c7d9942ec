// What Node and the browser share: the card, the resize rule, and what the graph says.

const RULE = "halve-area-linear";

/** Throws unless this file prepares photos as the model of `card`, its model.json, wants them. */
export function check(card) {
  const { io, resize, colour } = card?.graph ?? {};
  if (io !== "uint8" || resize !== RULE || colour !== "RGB") {
    throw new Error(
      `the model takes ${io} ${colour} photos resized by ${resize}, this program makes ` +
        `uint8 RGB by ${RULE}; export it with --io uint8`,
    );
  }
  const { regions, tile, aspect } = card.view;
  if (regions.length || tile.length || aspect !== "stretch") {
    throw new Error("the model looks at regions or tiles, this program at whole photos");
  }
  if (!card.variants?.fp32) throw new Error("the model has no variant fp32");
}

/**
 * Scores a photo.
 *
 * `model` holds `ort` (onnxruntime-node or -web), `cv` (OpenCV.js), `session` and `card`; `photo`
 * holds `data`, bytes in the order of rows with 3 (RGB) or 4 (RGBA) channels, `width` and `height`.
 * The score lies in 0..1, 0.5 is the threshold; `raw_score` is the reconstruction error itself.
 */
export async function score({ ort, cv, session, card }, photo) {
  const { height, width } = card.graph;
  const image = new ort.Tensor("uint8", prepare(cv, photo, height, width), [1, height, width, 3]);
  const { pred_score, pred_label, anomaly_map } = await session.run({ image });
  const p = pred_score.data[0];
  if (Number.isNaN(p)) throw new Error("the score is not a number: the photo is not to be judged");
  const { value, spread } = card.variants.fp32.calibration.image;
  const belowOne = Math.min(p, 1 - 2 ** -25); // no infinite raw score
  return {
    state: pred_label.data[0] ? "anomalous" : "good",
    score: p,
    raw_score: value * (belowOne / (1 - belowOne)) ** spread,
    anomaly_map, // a tensor of 1 x 1 x rows x columns, in 0..1
  };
}

/** The bytes that the graph takes: RGB, `height` x `width` x 3. */
export function prepare(cv, { data, width: columns, height: rows }, height, width) {
  const channels = data.length / (rows * columns);
  if (channels !== 3 && channels !== 4) {
    throw new Error(`${data.length} bytes are no RGB or RGBA photo of ${columns} x ${rows} pixels`);
  }
  let image = new cv.Mat(rows, columns, channels === 3 ? cv.CV_8UC3 : cv.CV_8UC4);
  try {
    image.data.set(data);
    if (channels === 4) cv.cvtColor(image, image, cv.COLOR_RGBA2RGB);
    image = resize(cv, image, height, width);
    return new Uint8Array(image.data);
  } finally {
    image.delete(); // OpenCV.js lives in memory of its own, which nobody else tidies up
  }
}

/** Stretches to `height` x `width` by RULE, as fre_runtime does; `image` is used up. */
function resize(cv, image, height, width) {
  let halved = false;
  const to = (rows, columns, interpolation) => {
    const resized = new cv.Mat();
    cv.resize(image, resized, new cv.Size(columns, rows), 0, 0, interpolation);
    image.delete();
    image = resized;
  };
  const canHalve = (side, wanted) => side % 2 === 0 && side >= 2 * wanted;
  const halve = () => to(image.rows / 2, image.cols / 2, cv.INTER_AREA);

  while (canHalve(image.rows, height) && canHalve(image.cols, width)) {
    halve();
    halved = true;
  }
  if (image.rows === height && image.cols === width) return image;
  if (halved && image.rows <= 3 * height && image.cols <= 3 * width) {
    to(2 * height, 2 * width, cv.INTER_LINEAR);
    halve();
    return image;
  }
  const [rows, columns] = [Math.min(image.rows, height), Math.min(image.cols, width)];
  if (rows !== image.rows || columns !== image.cols) to(rows, columns, cv.INTER_AREA);
  if (rows !== height || columns !== width) to(height, width, cv.INTER_LINEAR);
  return image;
}

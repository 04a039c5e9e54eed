// The picture of one method: its video, and over it the bones of the frame that is shown.
"use strict";

halign.tile = (() => {
  const { element, url } = halign;

  // video  the clip's entry; file  of this method, null where it has none; why  it has none
  function tile(clip, name, file, fps, why) {
    const figure = element("figure", { className: "tile" }, element("figcaption", {}, name));
    const made = { name, figure, video: null, bones: null, show() {}, close() {} };
    if (file === null) {
      figure.append(element("p", { className: "absent" }, why ?? "no video of this clip"));
      return made;
    }
    const { folder, width, height } = clip.video;
    const video = element("video", {
      src: url(`${folder}/${file}`), preload: "auto", playsInline: true, muted: true, disablePictureInPicture: true,
      "aria-label": `${clip.id}, ${name}`,
    });
    const canvas = element("canvas", { width: width * 4, height: height * 4, "aria-hidden": "true" });
    const holder = element("div", { className: "frame" }, video, canvas);
    holder.style.aspectRatio = `${width} / ${height}`;
    figure.append(holder);
    video.addEventListener("error", () => {
      if (video.src) figure.append(element("p", { className: "absent" }, "this video cannot be played here"));
    });
    let frame = 0;
    made.video = video;
    made.show = () => draw(canvas, made.bones, frame);
    made.close = () => { // or its decoder stays until the next collection, and browsers allow few
      video.removeAttribute("src");
      video.load();
    };
    const presented = (_, { mediaTime }) => {
      frame = Math.round(mediaTime * fps);
      made.show();
      video.requestVideoFrameCallback(presented);
    };
    video.requestVideoFrameCallback(presented);
    return made;
  }

  // What was asked for, the same for all methods; nothing where `bones` is null.
  function draw(canvas, bones, frame) {
    const pen = canvas.getContext("2d");
    pen.clearRect(0, 0, canvas.width, canvas.height);
    const points = bones?.points[frame];
    if (!points) return;
    pen.lineWidth = canvas.height / 90;
    pen.lineCap = "round";
    for (const [i, [from, to]] of bones.edges.entries()) {
      if (!points[from] || !points[to]) continue;
      pen.strokeStyle = bones.colours[i];
      pen.beginPath();
      pen.moveTo(points[from][0] * canvas.width, points[from][1] * canvas.height);
      pen.lineTo(points[to][0] * canvas.width, points[to][1] * canvas.height);
      pen.stroke();
    }
  }

  return tile;
})();

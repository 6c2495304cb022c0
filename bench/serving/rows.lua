-- wrk: rotates over the whole requests of a file (one line with their lengths, then their bytes), and prints its figures as JSON.
local requests, place = {}, 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  for length in file:read("*l"):gmatch("%d+") do
    requests[#requests + 1] = file:read(tonumber(length))
  end
  file:close()
end

function request()
  place = place % #requests + 1
  return requests[place]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"rate": %.2f, "answered": %d, "failed": %d, "p50": %.1f, "p99": %.1f}\n',
    summary.requests / (summary.duration / 1e6), summary.requests,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end

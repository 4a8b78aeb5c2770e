#!lua flags=allow-oom
-- TAKE worker, lease ms, max crashes, lane... ->
--   {'job', job JSON, fence, attempt, crashes, retries, plan JSON, or '' as long as it is the job's}
--   {'empty', ms until a delayed job is due or -1, last id of each lane}
local worker, lease_ms, max_crashes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local reclaim = may_reclaim(lease_ms)

-- Delayed jobs whose time has come go to their lanes.
for _, id in ipairs(redis.call('ZRANGE', DELAYED, '-inf', now(), 'BYSCORE', 'LIMIT', 0, 50)) do
  redis.call('ZREM', DELAYED, id)
  local lane = redis.call('HGET', job_key(id), 'lane')
  if lane then
    local entry = redis.call('XADD', lane_key(lane), '*', 'job', id)
    redis.call('HSET', job_key(id), 'entry', entry)
  end
end

-- An entry whose owner has not beaten for a lease. XAUTOCLAIM looks at ten entries a call at
-- most, so the cursor is followed to the end: behind ten live jobs there may be a lost one.
local function expired(lane)
  local cursor = '0-0'
  repeat
    local reply = redis.call('XAUTOCLAIM', lane_key(lane), GROUP, CONSUMER, lease_ms, cursor,
      'COUNT', 1)
    if reply[2][1] then return reply[2][1] end
    cursor = reply[1]
  until cursor == '0-0'
end

local function fresh(lane)
  local reply = redis.call('XREADGROUP', 'GROUP', GROUP, CONSUMER, 'COUNT', 1,
    'STREAMS', lane_key(lane), '>')
  return reply and reply[1] and reply[1][2][1]
end

local function start(id, job, crashes)
  local fence = redis.call('HINCRBY', job_key(id), 'fence', 1)
  local attempt = redis.call('HINCRBY', job_key(id), 'attempt', 1)
  redis.call('HSET', job_key(id), 'status', 'running', 'owner', worker, 'started_at', now())
  tell(id, 'started', cjson.encode({worker = worker, attempt = attempt}))
  return {'job', job.spec, fence, attempt, crashes, job.retries, job.plan}
end

-- One entry: starts its job, or ends it and returns nothing.
local function claim(lane, entry, lost)
  local id = entry[2][2]
  local row = redis.call('HMGET', job_key(id),
    'status', 'spec', 'cancel', 'crashes', 'retries', 'owner', 'entry', 'plan')
  local status, crashes = row[1], tonumber(row[4])
  if (status ~= 'queued' and status ~= 'running') or row[7] ~= entry[1] then
    drop(lane, entry[1])
    return nil
  end
  if row[3] == '1' then
    drop(lane, entry[1])
    close(id, 'cancelled', '{}')
    return nil
  end
  if lost then
    crashes = redis.call('HINCRBY', job_key(id), 'crashes', 1)
    local reason = 'worker ' .. row[6] .. ' did not answer for ' .. (lease_ms / 1000) .. ' s'
    if crashes >= max_crashes then
      drop(lane, entry[1])
      bury(id, crashes, reason)
      return nil
    end
    tell(id, 'requeued', cjson.encode({reason = reason}))
  end
  local job = {spec = row[2], retries = tonumber(row[5]), plan = row[8] or ''}
  return start(id, job, crashes)
end

local tips = {}
for i = 4, #ARGV do
  local lane = ARGV[i]
  for _ = 1, 50 do
    local lost = reclaim and expired(lane) or nil
    local entry = lost or fresh(lane)
    if not entry then break end
    local reply = claim(lane, entry, lost ~= nil)
    if reply then return reply end
  end
  tips[#tips + 1] = field(redis.call('XINFO', 'STREAM', lane_key(lane)), 'last-generated-id')
end
local due = redis.call('ZRANGE', DELAYED, 0, 0, 'WITHSCORES')[2]
return {'empty', due and math.max(0, due - now()) or -1, unpack(tips)}

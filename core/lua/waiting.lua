#!lua flags=no-writes
-- WAITING id or '', lane... -> {jobs ahead of `id` or -1, waiting jobs of each lane}
local id, ahead, counts, before = ARGV[1], -1, {}, 0
local row = redis.call('HMGET', job_key(id), 'status', 'lane', 'entry')
for i = 2, #ARGV do
  local lane = ARGV[i]
  if redis.call('EXISTS', lane_key(lane)) == 1 then
    local groups = redis.call('XINFO', 'GROUPS', lane_key(lane))
    local pending = groups[1] and field(groups[1], 'pending') or 0
    local waiting = redis.call('XLEN', lane_key(lane)) - pending
    if row[1] == 'queued' and row[2] == lane and row[3] ~= '' then
      local delivered = groups[1] and field(groups[1], 'last-delivered-id') or '0-0'
      ahead = before + #redis.call('XRANGE', lane_key(lane), '(' .. delivered, '(' .. row[3])
    end
    counts[#counts + 1], before = waiting, before + waiting
  else
    counts[#counts + 1] = 0
  end
end
return {ahead, unpack(counts)}

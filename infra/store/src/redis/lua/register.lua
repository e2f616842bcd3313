-- KEYS: count, head of the timeline, then for each: names. ARGV: now, then for each: name, environment, whether there
-- is a profile, user, profile. Gives for each: ordinal, whether it is new, its record.
local now, count = tonumber(ARGV[1]), tonumber(call('GET', KEYS[1]) or 0)

-- All are looked at before anything is written.
local known, env_of, devices, fresh = {}, {}, {}, 0
for k = 3, #KEYS do
  local a = (k - 3) * 5 + 2
  local name, env = ARGV[a], ARGV[a + 1]
  local ordinal = device_named(KEYS[k], name)
  if ordinal and not known[name] then
    known[name] = ordinal
    devices[name] = device_read(KEYS[1], known[name])
    if not devices[name] then return redis.error_reply('CORRUPT no record of device ' .. name) end
    env_of[name] = devices[name].env
  end
  if not env_of[name] then env_of[name], fresh = env, fresh + 1 end
  if env_of[name] ~= env then
    local envs = { l = 'live', t = 'test' }
    return redis.error_reply('REJECTED device ' .. name .. ' is registered in ' .. envs[env_of[name]])
  end
  if not ordinal and count + #KEYS >= 4294967295 then
    return redis.error_reply('REJECTED the app has used up its ordinals')
  end
end

local start = string.rep('\0', 24) .. string.rep(bytes8(tonumber(call('GET', KEYS[2]) or 0)), 2)
-- Ordinals are given before anything is done with them, and names lead to devices that are written: where a slot is on
-- its way to another node of a cluster this may stop anywhere.
if fresh > 0 then call('SET', KEYS[1], digits(count + fresh)) end
local done = {}
for k = 3, #KEYS do
  local a = (k - 3) * 5 + 2
  local name, env, has_profile = ARGV[a], ARGV[a + 1], ARGV[a + 2] == '1'
  local ordinal, new = known[name], not known[name]
  if new then
    ordinal, count = count, count + 1
    known[name] = ordinal
    devices[name] = { env = env, name = name, generation = 0, seen = now, user = '', profile = '' }
    local places, field = slot(KEYS[1], 'p', ordinal)
    call('HSET', places, 'c' .. field, start)
  end
  local device = devices[name]
  if new or has_profile and device.profile ~= ARGV[a + 4] then device_changed(KEYS[1], ordinal) end
  if has_profile then
    if device.user ~= ARGV[a + 3] then
      device_owned(KEYS[1], ordinal, device, false)
      device.user = ARGV[a + 3]
      device_owned(KEYS[1], ordinal, device, true)
    end
    device.profile = ARGV[a + 4]
  end
  done[#done + 1] = { ordinal, new and 1 or 0, device_write(KEYS[1], ordinal, device) }
  if new then
    device_live(KEYS[1], ordinal, env, 1)
    call('HSET', KEYS[k], name, env == 'l' and ordinal or -1 - ordinal)
  end
end
return done
